"""The prompt that a person would give for a mask: boxes, jittered as by hand, and clicks; the names of prompts."""

import re
from typing import NamedTuple, get_args

import numpy as np
import scipy  # its modules load when they are first used

from medsam_helpers.errors import ConfigError, PromptError, check_known
from medsam_helpers.settings import BoxMode


def mask_to_boxes(mask: np.ndarray, mode: BoxMode = "union", min_area: float = 1e-4) -> np.ndarray:
    """Tight half-open boxes round a mask.

    Args:
        mask: (H, W) bool, or int labels, 0 outside.
        mode: "components": one box a connected component (8 neighbours), largest first; "union": one round all these;
            "labels": one a label, of a bool mask one a component.
        min_area: smallest share of the image that gets a box (the largest always does): less are stray pixels, which
            180 of Kvasir-SEG's 1000 JPEG masks have.
    Returns:
        (N, 4) float32 `[x0, y0, x1, y1)`; N is 1 for "union".
    Raises:
        PromptError: the mask is empty, so there is nothing to put a box round.
        ConfigError: unknown mode.

    >>> mask = np.zeros((6, 8), bool); mask[1:3, 2:5] = True; mask[5, 7] = True
    >>> mask_to_boxes(mask)
    array([[2., 1., 8., 6.]], dtype=float32)
    """
    if not mask.any():
        raise PromptError("the mask is empty: there is nothing to put a box round")
    check_known("box mode", mode, get_args(BoxMode))
    if mode == "labels" and mask.dtype != np.bool_:
        return np.concatenate([mask_to_boxes(mask == label) for label in np.unique(mask[mask > 0])])
    labels, _ = scipy.ndimage.label(mask, np.ones((3, 3)))
    areas = np.bincount(labels.ravel())[1:]
    order, found = np.argsort(-areas, kind="stable"), scipy.ndimage.find_objects(labels)
    regions = [found[i] for rank, i in enumerate(order) if rank == 0 or areas[i] >= min_area * mask.size]
    boxes = np.array([[x.start, y.start, x.stop, y.stop] for y, x in regions], np.float32)
    if mode == "union":
        return np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])[None]
    return boxes


def whole_image(hw: tuple[int, int]) -> np.ndarray:
    """(1, 4) float32 the box round an image of this height and width."""
    return np.array([[0, 0, hw[1], hw[0]]], np.float32)


def jitter_boxes(
    boxes: np.ndarray, original_hw: tuple[int, int], jitter_1024: float, rng: np.random.Generator
) -> np.ndarray:
    """Boxes whose four sides are each moved by an independent uniform draw, inward or outward.

    Args:
        boxes: (N, 4) float, original space.
        original_hw: height and width of the image; the result stays inside it.
        jitter_1024: largest move, in pixels of a model space of 1024 (20 is 1.95 % of the long side).
        rng: source of the draws; 4 N of them, whatever the jitter.
    Returns:
        (N, 4) float32, each box at least one pixel wide and high.
    """
    moves = rng.uniform(-1, 1, size=np.shape(boxes)) * (jitter_1024 * max(original_hw) / 1024)
    moved, limits = np.asarray(boxes, np.float64) + moves, np.array(original_hw)[::-1]
    low, high = np.sort([moved[:, :2], moved[:, 2:]], axis=0)
    low = np.clip(low, 0, limits - 1)
    high = np.clip(np.maximum(high, low + 1), 1, limits)
    return np.concatenate([low, high], axis=1).astype(np.float32)


def deepest_pixel(mask: np.ndarray) -> np.ndarray:
    """(2,) float32 xy of an (H, W) bool mask's pixel farthest from its and the image's edges; `PromptError`: empty."""
    if not mask.any():
        raise PromptError("the mask is empty: there is no pixel to click on")
    depth = scipy.ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(depth.argmax(), mask.shape)
    return np.array([x, y], np.float32)


def correcting_click(mask: np.ndarray, truth: np.ndarray, rng: np.random.Generator | None = None) -> list[float] | None:
    """The click that corrects a mask, on its largest mistake; None if nothing is wrong.

    Args:
        mask, truth: (H, W) bool, what the model says and what is right.
        rng: draws a pixel of the mistake; without it the click goes to the deepest, as an evaluation needs.
    Returns:
        x, y in pixels of the masks, and label: 1 where lesion was missed, 0 where there is none.

    >>> truth = np.zeros((5, 9), bool); truth[1:4, 1:4] = True
    >>> correcting_click(np.zeros_like(truth), truth)
    [2.0, 2.0, 1]
    >>> correcting_click(truth, truth)
    """
    mistakes, count = scipy.ndimage.label(mask != truth)
    if not count:
        return None
    largest = mistakes == 1 + np.bincount(mistakes.ravel())[1:].argmax()
    x, y = deepest_pixel(largest) if rng is None else rng.choice(np.argwhere(largest))[::-1]
    return [float(x), float(y), int(truth[int(y), int(x)])]


class Prompt(NamedTuple):
    """What a model is asked with; nothing of all is to find the lesion by itself."""

    jitter_1024: float | None = None  # of boxes; None: no box
    centre: bool = False  # with each box a click in the middle of what it holds
    clicks: int = 0  # without a box: so many clicks, each on the largest mistake so far


def prompt_name(jitter_1024: float) -> str:
    """The name of a jitter in tables: "exact", "j20", "j2.5"; every digit, since the draw is made from the name."""
    return f"j{np.format_float_positional(jitter_1024, trim='-')}" if jitter_1024 else "exact"


def read_prompt(name: str) -> Prompt:
    """The prompt of a name: "exact", "j20", with "+centre" behind either, "clicks:8" or "none"; else `ConfigError`.

    >>> read_prompt("j20+centre")
    Prompt(jitter_1024=20.0, centre=True, clicks=0)
    """
    found = re.fullmatch(r"(?:exact|j(\d+(?:\.\d+)?))(\+centre)?|clicks:([1-9]\d?)|none", name)
    if not found:
        told = "'exact', 'jN' for a jitter of N ('j20'), one of both with '+centre', 'clicks:N' or 'none'"
        raise ConfigError(f"prompt {name!r} is unknown: use {told}")
    jitter, centre, clicks = found.groups()
    if clicks or name == "none":
        return Prompt(clicks=int(clicks or 0))
    return Prompt(float(jitter or 0), bool(centre))
