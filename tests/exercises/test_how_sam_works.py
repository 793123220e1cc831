"""Checkers of notebook 03: a right answer is correct, each kind of wrong one gets its hint, a stub is not attempted."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from medsam_helpers.exercises import CHECKERS, check


def stability(logits, offset):
    return ((logits > offset).sum() / (logits > -offset).sum()).item()


def next_click(prediction, truth):
    wrong, _ = ndimage.label(prediction != truth)
    largest = wrong == np.bincount(wrong.ravel())[1:].argmax() + 1
    depth = ndimage.distance_transform_edt(np.pad(largest, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    return x, y, truth[y, x]


def any_mistake(prediction, truth):
    y, x = np.argwhere(prediction != truth)[0]
    return x, y, int(truth[y, x])


def at_the_rim(prediction, truth):
    wrong, _ = ndimage.label(prediction != truth)
    y, x = np.argwhere(wrong == np.bincount(wrong.ravel())[1:].argmax() + 1)[0]
    return x, y, int(truth[y, x])


def swapped(prediction, truth):
    x, y, label = next_click(prediction, truth)
    return y, x, label


RIGHT = {
    "03.1": [1.72, 880 * 2 / 1024, torch.tensor(1.71875)],
    "03.2": [stability, lambda logits, offset: (logits > offset).sum() / (logits > -offset).sum()],
    "03.3": [next_click, lambda prediction, truth: np.array(next_click(prediction, truth), float)],
}
WRONG = {
    "03.1": [
        (3.44, "float32"),
        (1.845, "units of 1000"),
        (1760, "that is in MiB"),
        (880, "multiply images"),
        ("two", "multiply images"),
    ],
    "03.2": [
        (lambda logits, offset: (logits > offset).sum() / (logits > 0).sum(), "mask at 0"),
        (lambda logits, offset: (logits > -offset).sum() / (logits > offset).sum(), "1 at most"),
        (lambda logits, offset: (logits > offset).float().mean(), "count the pixels"),
        (lambda logits, offset: stability(logits, 1.0), "second argument"),
    ],
    "03.3": [
        (lambda prediction, truth: (0, 0, 0), "prediction is right"),
        (lambda prediction, truth: (60, 3, 0), "outside the image"),
        (any_mistake, "larger mistake"),
        (at_the_rim, "at the rim"),
        (swapped, "right: click into the difference"),
        (lambda prediction, truth: (*next_click(prediction, truth)[:2], 1), "label is 0"),
        (lambda prediction, truth: (*next_click(prediction, truth)[:2], 0), "label is 1"),
    ],
}


def said(capsys, exercise, answer):
    check(exercise, answer)
    return capsys.readouterr().out


@pytest.mark.parametrize(("exercise", "answer"), [(e, a) for e, answers in RIGHT.items() for a in answers])
def test_a_right_answer_is_correct(capsys, exercise, answer):
    assert said(capsys, exercise, answer) == f"{exercise}: correct\n"


@pytest.mark.parametrize(("exercise", "answer", "hint"), [(e, *a) for e, answers in WRONG.items() for a in answers])
def test_a_wrong_answer_gets_its_hint(capsys, exercise, answer, hint):
    line = said(capsys, exercise, answer)
    assert line.startswith(f"{exercise}: not yet: ")
    assert hint in line


@pytest.mark.parametrize("exercise", ["03.2", "03.3"])
def test_a_stub_is_not_attempted(capsys, exercise):
    assert said(capsys, exercise, lambda *_: None) == f"{exercise}: not attempted yet\n"


def test_every_checker_is_tried_with_a_right_and_a_wrong_answer():
    assert RIGHT.keys() == WRONG.keys() == {exercise for exercise in CHECKERS if exercise.startswith("03.")}
