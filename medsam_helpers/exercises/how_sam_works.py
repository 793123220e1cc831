"""Checkers of notebook 03, how SAM works."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from scipy import ndimage

from medsam_helpers.exercises.checking import Answer, Hints, checker, near, number_hint


@checker("03.3")
def _stability(answer: Answer) -> Hints:
    logits = torch.tensor([[3.0, 0.5, -0.5], [-2.0, 1.5, 0.2]])
    # Above 1: two. Above -1: five, above 0 four of them.
    known = [
        (2 / 4, "that compares with the mask at 0: take the one at -offset as the larger mask"),
        (5 / 2, "the smaller mask goes above the line: the ratio is 1 at most"),
    ]
    otherwise = "count the pixels with a logit above +offset, and divide by those above -offset"
    yield from number_hint(answer(logits, 1.0), 2 / 5, 1e-4, known, otherwise)
    if not near(answer(logits, 2.5), 1 / 6, 1e-4):
        yield "the offset is the second argument"


Mistake = tuple[np.ndarray, np.ndarray, int, str]  # mask, truth; of the largest mistake a click's label, and its kind


def mistakes() -> Iterator[Mistake]:
    """A mask that misses most of a lesion, and one that covers too much; each has a smaller mistake elsewhere."""
    truth = np.zeros((40, 60), bool)
    truth[5:35, 10:40] = True
    missed, spilled = truth.copy(), truth.copy()
    missed[5:35, 20:40], missed[0:2, 50:53] = False, True
    spilled[10:30, 40:58], spilled[5:7, 10:12] = True, False
    yield missed, truth, 1, "missed lesion"
    yield spilled, truth, 0, "a false alarm"


def click_hints(click: Sequence[float], mistake: Mistake, least_depth: float = 0.5) -> Hints:
    """What is wrong with a click x, y, label that shall correct the largest mistake."""
    mask, truth, label, kind = mistake
    x, y, said = map(int, click)
    if not (0 <= x < 60 and 0 <= y < 40):
        yield "the click lies outside the image: give x, the column, then y, the row"
    wrong, _ = ndimage.label(mask != truth)
    region = wrong[y, x]
    if not region:
        yield "the click lies where the prediction is right: click into the difference of the two masks"
    if region != np.bincount(wrong.ravel())[1:].argmax() + 1:
        yield "there is a larger mistake: label the connected regions of the difference, take the largest"
    depth = ndimage.distance_transform_edt(np.pad(wrong == region, 1))[1:-1, 1:-1]
    if depth[y, x] < least_depth * depth.max():
        yield "the click lies at the rim of the mistake: click where it is deepest"
    if said != label:
        yield f"the click lies in {kind}, so its label is {label}: 1 says lesion, 0 says not lesion"


@checker("03.2")
def _next_click(answer: Answer) -> Hints:
    for mistake in mistakes():
        yield from click_hints(answer(*mistake[:2]), mistake)
