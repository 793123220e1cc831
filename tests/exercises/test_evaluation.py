"""Checkers of notebook 05: a right answer is correct, each kind of wrong one gets its hint, a stub is not attempted."""

import numpy as np
import pytest

from medsam_helpers.evaluation.agreement import limits_of_agreement
from medsam_helpers.exercises import CHECKERS, check


def said(capsys, exercise, answer):
    check(exercise, answer)
    return capsys.readouterr().out


def by_patient(gains, patients, rng, n=4000, draw_images=False, percentiles=(2.5, 97.5)):
    gains, names = np.asarray(gains), np.array(patients)
    groups = [gains[names == name] for name in sorted(set(patients))]
    if draw_images:
        groups = [np.array([gain]) for gain in gains]
    drawn = rng.integers(len(groups), size=(n, len(groups)))
    sums, sizes = np.array([g.sum() for g in groups]), np.array([g.size for g in groups])
    return np.percentile(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1), percentiles)


def by_ratio(reference, measured, width=1.96, ddof=1):
    logs = np.log(np.asarray(measured) / np.asarray(reference))
    return np.exp(logs.mean() + np.array([0, -width, width]) * logs.std(ddof=ddof))


RIGHT = {
    "05.1": [2 / 3, 0.67, np.float64(0.6667)],
    "05.2": [by_patient, lambda *a: tuple(by_patient(*a, n=1500))],
    "05.3": [by_ratio, lambda r, m: limits_of_agreement(r, m, ratio=True)[:3], lambda r, m: by_ratio(r, m, ddof=0)],
}
WRONG = {
    "05.1": [
        (8 / 9, "whose IoU is 0.8"),
        (0.8, "what they share"),
        (0.64, "what they share"),
        ("x", "what they share"),
    ],
    "05.2": [
        (lambda *a: by_patient(*a, draw_images=True), "draw patients"),
        (lambda *a: by_patient(*a, percentiles=(0.01, 99.99)), "too wide"),
        (lambda gains, patients, rng: (0.4, 0.5), "does not hold"),
    ],
    "05.3": [
        (lambda r, m: np.log(by_ratio(r, m)), "logarithms still"),
        (lambda r, m: limits_of_agreement(r, m)[:3], "about 1"),
        (lambda r, m: by_ratio(m, r), "about 1"),
        (lambda r, m: by_ratio(r, m, width=1.96 / len(r) ** 0.5), "root of n"),
        (lambda r, m: by_ratio(r, m, width=3), "1.96"),
        (lambda r, m: by_ratio(r, m)[:2], "three numbers"),
    ],
}


def test_every_checker_of_the_notebook_is_tried():
    assert RIGHT.keys() == WRONG.keys() == {number for number in CHECKERS if number.startswith("05.")}


@pytest.mark.parametrize("exercise", ["05.2", "05.3"])
def test_a_stub_is_not_attempted(capsys, exercise):
    assert said(capsys, exercise, lambda *_: None) == f"{exercise}: not attempted yet\n"


@pytest.mark.parametrize(("exercise", "answer"), [(e, a) for e, answers in RIGHT.items() for a in answers])
def test_a_right_answer_is_correct(capsys, exercise, answer):
    assert said(capsys, exercise, answer) == f"{exercise}: correct\n"


@pytest.mark.parametrize(("exercise", "answer", "hint"), [(e, *a) for e, answers in WRONG.items() for a in answers])
def test_a_wrong_answer_gets_its_hint(capsys, exercise, answer, hint):
    line = said(capsys, exercise, answer)
    assert line.startswith(f"{exercise}: not yet: ")
    assert hint in line
