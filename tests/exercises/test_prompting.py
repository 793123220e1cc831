"""Checkers of notebook 06: a right answer is correct, each kind of wrong one gets its hint."""

import numpy as np
from verdicts import says

from medsam_helpers.evaluation.evaluate import fill_box, fill_ellipse


def ellipse(image, boxes, points, right=0.0, fill=fill_ellipse):
    return np.array([fill(np.add(box, [0, 0, right, right]), image.shape[:2]) for box in boxes])


def agreement(masks):
    return masks.all(axis=0).sum() / max(masks.any(axis=0).sum(), 1) if masks.any() else 1.0


test_what_is_said_of_an_answer = says(
    ("06.1", 2 / 3, "correct"),
    ("06.1", 0.8, "Dice"),
    ("06.2", ellipse, "correct"),
    ("06.2", lambda *given: ellipse(*given, fill=fill_box), "touches"),
    ("06.2", lambda *given: ellipse(*given, right=4.0), "nearly"),
    ("06.2", lambda *given: ellipse(*given).astype(float), "one bool mask a box"),
    ("06.3", agreement, "correct"),
    ("06.3", lambda masks: 1 / agreement(masks), "above the line"),
    ("06.3", lambda masks: 0.5, "count the pixels"),
    ("06.3", lambda masks: agreement(masks) if len(masks) > 1 else 0, "itself"),
    ("06.3", lambda masks: agreement(masks) if masks.any() else 0, "empty"),
)
