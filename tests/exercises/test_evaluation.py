"""Checkers of notebook 05: a right answer is correct, each kind of wrong one gets its hint."""

import numpy as np
from verdicts import says

from medsam_helpers.evaluation.agreement import limits_of_agreement


def by_patient(gains, patients, rng, draw_images=False, percentiles=(2.5, 97.5)):
    gains, names = np.asarray(gains), np.array(patients)
    groups = [gains[names == name] for name in sorted(set(patients))]
    if draw_images:
        groups = [np.array([gain]) for gain in gains]
    drawn = rng.integers(len(groups), size=(4000, len(groups)))
    sums, sizes = np.array([g.sum() for g in groups]), np.array([g.size for g in groups])
    return np.percentile(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1), percentiles)


def by_ratio(reference, measured, width=1.96):
    logs = np.log(np.asarray(measured) / np.asarray(reference))
    return np.exp(logs.mean() + np.array([0, -width, width]) * logs.std(ddof=1))


test_what_is_said_of_an_answer = says(
    ("05.1", 0.67, "correct"),
    ("05.1", 8 / 9, "whose IoU is 0.8"),
    ("05.2", by_patient, "correct"),
    ("05.2", lambda *given: by_patient(*given, draw_images=True), "draw patients"),
    ("05.2", lambda *given: by_patient(*given, percentiles=(0.01, 99.99)), "too wide"),
    ("05.2", lambda *given: (0.4, 0.5), "does not hold"),
    ("05.3", by_ratio, "correct"),
    ("05.3", lambda *given: np.log(by_ratio(*given)), "logarithms still"),
    ("05.3", lambda *given: limits_of_agreement(*given)[:3], "about 1"),
    ("05.3", lambda r, m: by_ratio(r, m, width=1.96 / len(r) ** 0.5), "root of n"),
    ("05.3", lambda *given: by_ratio(*given, width=3), "1.96"),
    ("05.3", lambda *given: by_ratio(*given)[:2], "three numbers"),
)
