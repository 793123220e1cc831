"""Checkers of notebook 06, the box prompt."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from medsam_helpers.evaluation.predictors import fill_ellipse
from medsam_helpers.exercises.checking import Answer, Hints, checker, near, number_hint


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


@checker("06.2")
def _box_of_clicks(answer: Answer) -> Hints:
    points = np.array([[25, 10, 1], [40, 22, 1], [60, 5, 0], [12, 30, 1], [20, 44, 1]], float)
    known = {
        (12, 10, 40, 44): "a box is half-open: the pixels at the right and at the bottom belong to it, so add 1 there",
        (12, 5, 61, 45): "the click of label 0 lies on background: leave it out",
        (12, 5, 60, 44): "the click of label 0 lies on background: leave it out",
        (10, 12, 45, 41): "x first: a click is x, y, label, a box x0, y0, x1, y1",
        (12, 10, 29, 35): "those are width and height: the last two numbers are x1 and y1",
    }
    otherwise = "smallest and largest x and y of the clicks of label 1, as x0, y0, x1, y1"
    yield from _box_hint(answer(points), (12, 10, 41, 45), known, otherwise)


@checker("06.4")
def _padded_box(answer: Answer) -> Hints:
    box = np.array([20, 30, 60, 50], float)
    known = {
        (15, 27.5, 65, 52.5): "that is half of it: each of the two sides moves by the whole share",
        (10, 20, 70, 60): "top and bottom move by a share of the height, not of the width",
        (20, 30, 70, 55): "all four sides move: left and top outward too",
        (30, 35, 50, 45): "inward: x0 and y0 get smaller, x1 and y1 larger",
    }
    otherwise = "x0 - share * width, y0 - share * height, x1 + share * width, y1 + share * height"
    yield from _box_hint(answer(box.copy(), (100, 200), 0.25), (10, 25, 70, 55), known, otherwise)
    edge = np.array([5, 10, 85, 90], float)
    known = {(0, 0, 100, 90): "`size_hw` has the height first: x ends at the width, size_hw[1]"}
    yield from _box_hint(answer(edge, (100, 90), 0.25), (0, 0, 90, 100), known, "cut the box off at the image's edges")
    if edge.tolist() != [5, 10, 85, 90]:
        yield "the box that was handed over has changed: compute a new one"


@checker("06.5")
def _agreement(answer: Answer) -> Hints:
    masks = np.zeros((3, 4, 5), bool)
    masks[0, :2], masks[1, :3], masks[2, 1:3] = True, True, True  # all three: 5 pixels; any of them: 15
    known = {
        15 / 5: "the area on which all agree goes above the line: the ratio is 1 at most",
        5 / 20: "divide by the area that any mask calls lesion, not by the whole image",
    }
    otherwise = "count the pixels that all masks call lesion, and divide by those that any of them does"
    yield from number_hint(answer(masks), 5 / 15, 1e-6, known, otherwise)
    if not near(answer(masks[:1]), 1, 1e-6):
        yield "one mask agrees with itself: 1"
    if not near(answer(np.zeros((2, 3, 3), bool)), 1, 1e-6):
        yield "masks that are all empty agree too: give back 1, do not divide by 0"


def _box_hint(found: Any, right: tuple[float, ...], known: Mapping[Any, str], otherwise: str) -> Hints:
    """Nothing for the right box; the hint of the known wrong one; else the last."""
    given = np.asarray(found, float).ravel()
    if given.shape != (4,):
        yield f"give back four numbers, x0, y0, x1, y1; this has {given.size}"
    if not np.allclose(given, right):
        yield next((hint for wrong, hint in known.items() if np.allclose(given, wrong)), otherwise)
