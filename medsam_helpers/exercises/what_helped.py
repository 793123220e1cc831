"""Checkers of notebook 08, what helped on real images: numbers and names read from the records."""

from collections.abc import Collection, Mapping
from functools import partial

import numpy as np

from medsam_helpers.exercises.checking import Answer, Hints, checker, number_hint


def _interval_hint(answer: Answer, right: tuple[float, float, float], known: Mapping[float, str]) -> Hints:
    """Nothing for the right interval; hints for means that other comparisons have, in `known`."""
    try:
        found = np.array([float(value) for value in answer])
    except TypeError:
        found = np.array([])
    if found.shape != (3,):
        yield "give back what `difference` gives: mean, low and high"
    known = {-right[0]: "the sign: the model in question comes first, what it is compared with second"} | dict(known)
    yield from (hint for wrong, hint in known.items() if abs(found[0] - wrong) < 4e-4)
    if abs(found[0] - right[0]) > 4e-4:
        yield "other models, another prompt or another record: read the question's names once more"
    if not np.allclose(found, right, atol=2e-3):
        yield "the mean is right, the interval is not: take the differences image by image, as `difference` does"


def _names_hint(answer: Answer, right: Collection[str], known: Mapping[str, str], otherwise: str) -> Hints:
    """Nothing for the right names, in any order; else what is known of a wrong one, or how many there are."""
    found = {answer} if isinstance(answer, str) else set(answer)
    yield from (hint for name, hint in known.items() if name in found)
    if wrong := sorted(found - set(right)):
        yield f"{wrong[0]}: {otherwise}"
    if missing := len(set(right) - found):
        yield f"{missing} more: the size of a difference is not asked, only whether its interval leaves out zero"


_INTERVALS = {
    "08.1": (
        (-0.0129, -0.0249, -0.0037),
        {-0.0036: "that is at j20: take j50", -0.0146: "that is guide minus best: take sam"},
    ),
    "08.3": (
        (0.0082, 0.0028, 0.0149),
        {0.0073: "that is over 10 images: take 160 images", 0.0095: "that is at j50: take j20"},
    ),
    "08.5": (
        (0.0227, 0.0082, 0.0371),
        {0.0267: "only one side has test-time augmentation", 0.0053: "that is what it adds to the tuned model"},
    ),
    "08.7": (
        (-0.0125, -0.0219, -0.0012),
        {0.0051: "that is over the untouched model: compare with 160 polyps", -0.1520: "that is the U-Net"},
    ),
}
for _number, (_right, _known) in _INTERVALS.items():
    checker(_number)(partial(_interval_hint, right=_right, known=_known))


@checker("08.2")
def _clear_at_j50(answer: Answer) -> Hints:
    known = {"as it is": "as it is: nothing to compare, it is the baseline of the others"}
    known |= {"mobile-sam zero-shot": "mobile-sam zero-shot: the untouched model is no trial"}
    right = ("rate 1e-4", "jitter 10", "no average", "one view", "6 views: light too")
    yield from _names_hint(answer, right, known, "its interval at j50 holds zero")


@checker("08.4")
def _a_quarter_several(answer: Answer) -> Hints:
    known = {
        0.923: "that is with 7 images of 120: here every fourth image shows several lesions",
        0.935: "that is with one box a lesion: here one box is drawn round all",
        0.814: "that is for half of the images: a quarter weighs 1 / 4",
    }
    yield from number_hint(answer, 0.8755, 2e-3, known, "weigh both rows of the column `union`: 3 / 4 and 1 / 4")


@checker("08.6")
def _ahead_in(answer: Answer) -> Hints:
    known = {"hd95_percent": "hd95_percent: its interval just holds zero (a distance: below zero is better)"}
    yield from _names_hint(answer, ("iou", "nsd"), known, "its interval holds zero, or it is no metric of the table")


@checker("08.8")
def _growth_that_shows(answer: Answer) -> Hints:
    known = {
        1.288: "that is the error of one measurement: a growth compares two, so the spread is larger by the root of 2",
        1.32: "that is the upper limit, bias included: in a ratio of two measurements the bias cancels",
    }
    otherwise = "on logarithms: s from the limits, times 1.96, times the root of 2; then exp"
    yield from number_hint(answer, 1.430, 0.01, known, otherwise)


@checker("08.9")
def _median_of_polyps(answer: Answer) -> Hints:
    known = {
        89.8: "that is the mean, which a few failures pull down: the article's figures are medians",
        0.937: "in percent, as the article gives it: times 100",
        0.898: "that is the mean, and a fraction: take the median, in percent",
    }
    yield from number_hint(answer, 93.71, 0.05, known, "the zero-shot model, prompt exact: the median Dice in percent")
