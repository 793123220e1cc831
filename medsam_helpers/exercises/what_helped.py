"""Checkers of notebook 08, what helped on real images: intervals and names read from the records."""

from collections.abc import Collection
from functools import partial

import numpy as np

from medsam_helpers.exercises.checking import ANSWERS, Answer, Hints, Known, checker


def _interval_hint(answer: Answer, right: tuple[float, float, float], known: Known) -> Hints:
    """Nothing for the right interval; hints for means that other comparisons have, in `known`."""
    try:
        found = np.array([float(value) for value in answer])
    except TypeError:
        found = np.array([])
    if found.shape != (3,):
        yield "give back what `difference` gives: mean, low and high"
    if abs(found[0] + right[0]) < 4e-4:
        yield "the sign: the model in question comes first, what it is compared with second"
    yield from (hint for wrong, hint in known if abs(found[0] - wrong) < 4e-4)
    if abs(found[0] - right[0]) > 4e-4:
        yield "other models, another prompt or another record: read the question's names once more"
    if not np.allclose(found, right, atol=2e-3):
        yield "the mean is right, the interval is not: take the differences image by image, as `difference` does"


def _names_hint(answer: Answer, right: Collection[str], known: Known, otherwise: str) -> Hints:
    """Nothing for the right names, in any order; else what is known of a wrong one, or how many there are."""
    found = {answer} if isinstance(answer, str) else set(answer)
    yield from (hint for name, hint in known if name in found)
    if wrong := sorted(found - set(right)):
        yield f"{wrong[0]}: {otherwise}"
    if missing := len(set(right) - found):
        yield f"{missing} more: the size of a difference is not asked, only whether its interval leaves out zero"


for _kind, _hint in (("intervals", _interval_hint), ("names", _names_hint)):
    for _exercise, _entry in ANSWERS[_kind].items():
        checker(_exercise)(partial(_hint, **_entry))
