"""Checkers: a right answer is correct, each kind of wrong one gets its hint, a stub is not attempted."""

import math

import numpy as np
import pytest
import torch

from medsam_helpers.errors import ConfigError
from medsam_helpers.exercises import CHECKERS, check
from medsam_helpers.training.losses import dice_loss, focal_loss


def said(capsys, exercise, answer):
    check(exercise, answer)
    return capsys.readouterr().out


def no_body(*args, **kwargs):
    """Do nothing, as a stub does."""


def not_implemented(*args, **kwargs):
    raise NotImplementedError


@pytest.mark.parametrize("exercise", CHECKERS)
def test_nothing_given_is_not_attempted(capsys, exercise):
    assert said(capsys, exercise, None) == f"{exercise}: not attempted yet\n"


@pytest.mark.parametrize("stub", [no_body, not_implemented])
@pytest.mark.parametrize("exercise", ["01.2", "01.3", "02.2", "02.3"])
def test_a_stub_is_not_attempted(capsys, exercise, stub):
    assert said(capsys, exercise, stub) == f"{exercise}: not attempted yet\n"


def test_an_unknown_number_lists_the_known():
    with pytest.raises(ConfigError, match=r"'99.1' is unknown.*01\.1, 01\.2"):
        check("99.1", 1)


def test_an_error_in_the_answer_reaches_its_author():
    with pytest.raises(ZeroDivisionError):
        check("01.3", lambda logits, target: 1 / 0)


def tversky(logits, target, a, b, dims=(1, 2, 3)):
    p = logits.sigmoid()
    hit = (p * target).sum(dims)
    mass = hit + a * (p * (1 - target)).sum(dims) + b * ((1 - p) * target).sum(dims)
    return 1 - (hit / mass).mean()


def cell_to_original(row, column, height, width):
    scale = 1024 / max(height, width)
    return (column + 0.5) * 4 / scale, (row + 0.5) * 4 / scale


def split_by_patient(patients, rng):
    everyone = sorted(set(patients))
    return np.isin(patients, rng.permutation(everyone)[: max(1, len(everyone) // 5)])


RIGHT = {
    "01.1": [0.98, torch.tensor(0.98), np.float32(0.98)],
    "01.2": [tversky],
    "01.3": [lambda logits, target: focal_loss(logits, target, alpha=None)],
    "02.1": [112, 112.0],
    "02.2": [cell_to_original, lambda row, column, h, w: np.array(cell_to_original(row, column, h, w))],
    "02.3": [split_by_patient, lambda patients, rng: split_by_patient(patients, rng).tolist()],
}
WRONG = {
    "01.1": [
        (0.02, "weight of the background"),
        (0.25, "must equal"),
        (math.nan, "must equal"),
        ("0.9x", "must equal"),
        (torch.tensor([0.98, 0.98]), "must equal"),
    ],
    "01.2": [
        (lambda logits, target, a, b: dice_loss(logits, target), "third argument"),
        (lambda logits, target, a, b: tversky(logits, target, b, a), "third argument"),
        (lambda logits, target, a, b: tversky(logits, target, a, b, dims=(0, 1, 2, 3)), "within each image"),
        (lambda logits, target, a, b: 1 - tversky(logits, target, a, b), "within each image"),
    ],
    "01.3": [
        (focal_loss, "before the mean"),  # its default alpha is not 1
        (lambda logits, target: 0.0, "before the mean"),
    ],
    "02.1": [(144, "the image takes"), (448, "model space"), (56, "divide by four"), ("many", "divide by four")],
    "02.2": [
        (lambda row, column, h, w: cell_to_original(column, row, h, w), "from the column"),
        (lambda row, column, h, w: cell_to_original(row - 0.5, column - 0.5, h, w), "upper left corner"),
        (lambda row, column, h, w: ((column + 0.5) * w / 256, (row + 0.5) * h / 256), "one scale"),
        (lambda row, column, h, w: (column * w / 256, row * h / 256), "one scale"),
        (lambda row, column, h, w: ((column + 0.5) * 4, (row + 0.5) * 4), "one scale"),
    ],
    "02.3": [
        (lambda patients, rng: rng.random(len(patients)) < 0.2, "on both sides"),
        (lambda patients, rng: np.zeros(len(patients), bool), "0% of the images"),
        (lambda patients, rng: np.ones(len(patients), bool), "100% of the images"),
        (lambda patients, rng: sorted(set(patients))[:1], "booleans"),
        (lambda patients, rng: np.zeros(len(patients)), "booleans"),
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


def test_every_checker_is_tried_with_a_right_and_a_wrong_answer():
    own = {exercise for exercise in CHECKERS if exercise[:2] in ("01", "02")}  # the others: test_exercises_*.py
    assert RIGHT.keys() == WRONG.keys() == own
