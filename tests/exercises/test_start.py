"""Checkers of notebook 00: a right answer is correct, each kind of wrong one gets its hint, a stub is not attempted."""

import numpy as np
import pandas as pd
import pytest

from medsam_helpers.exercises import CHECKERS, check


def said(capsys, exercise, answer):
    check(exercise, answer)
    return capsys.readouterr().out


def to_box(x, y, width, height, shown, original):
    scale = original / shown
    return x * scale, y * scale, (x + width) * scale, (y + height) * scale


def got_worse(scores, prompt):
    dice = scores[scores.prompt == prompt].pivot(index="case", columns="model", values="dice")
    change = (dice["tuned"] - dice["zero-shot"]).sort_values()
    return list(change.index[change < 0])


def one_mask(masks):
    return np.any([mask > 0 for mask in masks], axis=0)


def worse_than_the_box(scores, prompt):
    dice = scores[scores.prompt == prompt].pivot(index="case", columns="model", values="dice")
    return sorted(dice.index[dice["tuned"] < dice["box"]])


RIGHT = {
    "00.1": [to_box, lambda *given: list(to_box(*given)), lambda *given: np.float32(to_box(*given))],
    "00.2": [got_worse, lambda scores, prompt: pd.Index(got_worse(scores, prompt))],
    "00.3": [one_mask, lambda masks: np.sum([mask > mask.max() / 2 for mask in masks], axis=0) > 0],
}
WRONG = {
    "00.1": [
        (lambda x, y, width, height, shown, original: (x, y, x + width, y + height), "pixels of the original"),
        (lambda x, y, width, height, *sizes: to_box(x, y, width - x, height - y, *sizes), "width and height still"),
        (lambda x, y, w, h, shown, original: to_box(x, y, w, h, original, shown), "other way round"),
        (lambda x, y, w, h, shown, original: np.add(to_box(x, y, w, h, shown, original), [0, 0, 1, 1]), "half-open"),
        (lambda *given: to_box(*given)[:2], "four numbers"),
        (lambda *given: 3, "four numbers"),
    ],
    "00.2": [
        (lambda scores, prompt: got_worse(scores, prompt)[::-1], "comes first"),
        (lambda scores, prompt: sorted(got_worse(scores, prompt)), "comes first"),
        (lambda scores, prompt: got_worse(scores, "j20"), "these gained"),
        (lambda scores, prompt: [*got_worse(scores, prompt), "e"], "as good as it was"),
        (worse_than_the_box, "tuned minus zero-shot"),
        (lambda scores, prompt: list("edbac"), "below 0"),
    ],
    "00.3": [
        (sum, "bool mask"),
        (lambda masks: np.stack(masks) > 0, "bool mask"),
        (lambda masks: sum(masks) > 0, "255 + 1 is 0"),
        (lambda masks: np.max(masks, axis=0) > 127, "full scale"),
        (lambda masks: masks[0] > 0, "in one of the masks"),
        (lambda masks: np.all([mask > 0 for mask in masks], axis=0), "in one of the masks"),
    ],
}


@pytest.mark.parametrize(("exercise", "answer"), [(e, a) for e, answers in RIGHT.items() for a in answers])
def test_a_right_answer_is_correct(capsys, exercise, answer):
    assert said(capsys, exercise, answer) == f"{exercise}: correct\n"


@pytest.mark.parametrize(("exercise", "answer", "hint"), [(e, *a) for e, answers in WRONG.items() for a in answers])
def test_a_wrong_answer_gets_its_hint(capsys, exercise, answer, hint):
    line = said(capsys, exercise, answer)
    assert line.startswith(f"{exercise}: not yet: ")
    assert hint in line


@pytest.mark.parametrize("exercise", RIGHT)
def test_a_stub_is_not_attempted(capsys, exercise):
    assert said(capsys, exercise, lambda *given: None) == f"{exercise}: not attempted yet\n"


def test_every_checker_is_tried_with_a_right_and_a_wrong_answer():
    assert RIGHT.keys() == WRONG.keys() == {exercise for exercise in CHECKERS if exercise.startswith("00.")}
