"""Checkers of notebook 06, the box prompt."""

import numpy as np

from medsam_helpers.evaluation.predictors import fill_ellipse
from medsam_helpers.exercises.checking import Answer, Hints, checker


@checker("06.1")
def _ellipse_model(answer: Answer) -> Hints:
    image = np.zeros((60, 90, 3), np.uint8)
    boxes, points = np.array([[10, 5, 50, 45], [40, 20, 88, 59.5]], np.float32), np.zeros((0, 3), np.float32)
    found = np.asarray(answer(image, boxes, points))
    if found.shape != (2, 60, 90) or found.dtype != np.bool_:
        yield f"give back one bool mask a box, (2, 60, 90) here; this is {found.dtype} {found.shape}"
    expected = np.array([fill_ellipse(box, (60, 90)) for box in boxes])
    wrong = ((found != expected).sum(axis=(1, 2)) / expected.sum(axis=(1, 2))).max()
    if wrong > 0.25:
        yield "the ellipse touches the middle of each side: ((x - cx) / (w / 2))^2 + ((y - cy) / (h / 2))^2 <= 1"
    if wrong > 0.08:
        yield "nearly: look at the centre and the half axes again, and at x1 and y1 being half-open"
