"""Checkers of notebook 06: right answers, each kind of wrong one with its hint, stubs."""

import numpy as np
import pytest

from medsam_helpers.evaluation.evaluate import fill_box, fill_ellipse
from medsam_helpers.exercises import CHECKERS, check


def said(capsys, exercise, answer):
    check(exercise, answer)
    return capsys.readouterr().out


def ellipse(image, boxes, points):
    return np.array([fill_ellipse(box, image.shape[:2]) for box in boxes])


def filled(image, boxes, points):
    return np.array([fill_box(box, image.shape[:2]) for box in boxes])


def agreement(masks):
    return masks.all(axis=0).sum() / max(masks.any(axis=0).sum(), 1) if masks.any() else 1.0


@pytest.mark.parametrize(("exercise", "answer"), [("06.1", 2 / 3), ("06.2", ellipse), ("06.3", agreement)])
def test_right_answers(capsys, exercise, answer):
    assert said(capsys, exercise, answer) == f"{exercise}: correct\n"


@pytest.mark.parametrize(
    ("exercise", "answer", "hint"),
    [
        ("06.1", 0.8, "Dice"),
        ("06.1", 8000 / 9900, "20 each"),
        ("06.1", 0.3, "intersection"),
        ("06.2", filled, "touches"),
        ("06.2", lambda *a: ellipse(*a).any(axis=0), "one bool mask a box"),
        ("06.2", lambda *a: ellipse(*a).astype(float), "bool"),
        ("06.3", lambda masks: 1 / agreement(masks), "above the line"),
        ("06.3", lambda masks: masks.all(axis=0).mean(), "whole image"),
        ("06.3", lambda masks: 0.5, "count the pixels"),
        ("06.3", lambda masks: agreement(masks) if len(masks) > 1 else 0, "itself"),
        ("06.3", lambda masks: agreement(masks) if masks.any() else 0, "empty"),
    ],
)
def test_wrong_answers_get_their_hint(capsys, exercise, answer, hint):
    told = said(capsys, exercise, answer)
    assert told.startswith(f"{exercise}: not yet: ")
    assert hint in told


@pytest.mark.parametrize("exercise", [name for name in CHECKERS if name.startswith("06.")])
def test_stubs_are_not_attempted(capsys, exercise):
    assert said(capsys, exercise, None) == f"{exercise}: not attempted yet\n"
    if exercise != "06.1":
        assert said(capsys, exercise, lambda *_: None) == f"{exercise}: not attempted yet\n"
