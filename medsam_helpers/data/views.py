"""Views of a case: mirrored, turned, in other light. Each has an embedding of its own, encoded once."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from medsam_helpers.data.case import Case, Cases


def _gamma(exponent: float) -> Callable[[np.ndarray], np.ndarray]:
    """Another brightness: black stays black, white stays white."""
    curve = np.round(255 * (np.arange(256) / 255) ** exponent).astype(np.uint8)
    return lambda image: curve[image]


TURNS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as-is": lambda pixels: pixels,
    "mirrored": lambda pixels: pixels[:, ::-1],
    "upside-down": lambda pixels: pixels[::-1],
    "turned": lambda pixels: pixels[::-1, ::-1],
    "quarter-left": lambda pixels: np.rot90(pixels, 1),
    "quarter-right": lambda pixels: np.rot90(pixels, -1),
}
"""What each does to an array (H, W) or (H, W, 3). A polyp has no upright side; check that your organ has none."""
LIGHTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"brighter": _gamma(1 / 1.4), "darker": _gamma(1.4)}
"""What each does to an image; the mask stays."""
VIEWS = TURNS | LIGHTS


def view_of(case: Case, view: str) -> Case:
    """The case as a view of `VIEWS` shows it, its name followed by the view's.

    >>> case = Case("a", np.zeros((1, 2, 3), np.uint8), np.array([[True, False]]))
    >>> view_of(case, "mirrored").mask
    array([[False,  True]])
    """
    if view == "as-is":
        return case
    name = f"{case.name} {view}"
    if view in LIGHTS:
        return replace(case, name=name, image=LIGHTS[view](case.image))
    given = ((part, getattr(case, part)) for part in ("image", "mask", "ignored", "labels"))
    turned: Any = {part: np.ascontiguousarray(TURNS[view](array)) for part, array in given if array is not None}
    return replace(case, name=name, **turned)


def views_of(cases: Sequence[Case], views: Iterable[str]) -> Cases:
    """Each view of each case, drawn when asked for."""
    places = {f"{index} {view}": (index, view) for index in range(len(cases)) for view in views}
    return Cases(list(places), lambda name: view_of(cases[places[name][0]], places[name][1]))
