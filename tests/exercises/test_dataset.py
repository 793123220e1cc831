"""Checkers of notebook 02: a right answer is correct, each kind of wrong one gets its hint."""

import numpy as np
from verdicts import says


def cell_to_original(row, column, height, width):
    scale = 1024 / max(height, width)
    return (column + 0.5) * 4 / scale, (row + 0.5) * 4 / scale


def split_by_patient(patients, rng):
    everyone = sorted(set(patients))
    return np.isin(patients, rng.permutation(everyone)[: max(1, len(everyone) // 5)])


test_what_is_said_of_an_answer = says(
    ("02.1", 112, "correct"),
    ("02.1", 144, "the image takes"),
    ("02.2", cell_to_original, "correct"),
    ("02.2", lambda row, column, *size: cell_to_original(column, row, *size), "from the column"),
    ("02.2", lambda row, column, *size: cell_to_original(row - 0.5, column - 0.5, *size), "upper left corner"),
    ("02.2", lambda row, column, h, w: ((column + 0.5) * w / 256, (row + 0.5) * h / 256), "one scale"),
    ("02.3", split_by_patient, "correct"),
    ("02.3", lambda patients, rng: rng.random(len(patients)) < 0.2, "on both sides"),
    ("02.3", lambda patients, rng: np.ones(len(patients), bool), "100% of the images"),
    ("02.3", lambda patients, rng: np.zeros(len(patients)), "booleans"),
)
