"""A simulated user: a click on the largest mistake, a box drawn too large or elsewhere."""

import numpy as np
from scipy import ndimage

from medsam_helpers.prompts import deepest_pixel

_DARK = 30  # gray values up to this are the recorder's black, not tissue


def correcting_click(mask: np.ndarray, truth: np.ndarray) -> list[float] | None:
    """The click that corrects a mask, in the middle of its largest mistake; None if nothing is wrong.

    Args:
        mask, truth: (H, W) bool, what the model says and what is right.
    Returns:
        x, y in pixels of the original space, and label: 1 where lesion was missed, 0 where there is none.

    >>> truth = np.zeros((5, 9), bool); truth[1:4, 1:4] = True
    >>> correcting_click(np.zeros_like(truth), truth)
    [2.0, 2.0, 1]
    >>> correcting_click(truth, truth)
    """
    mistakes, count = ndimage.label(mask != truth)
    if not count:
        return None
    largest = mistakes == 1 + np.bincount(mistakes.ravel())[1:].argmax()
    x, y = map(float, np.ravel(deepest_pixel(largest)))
    return [x, y, int(truth[int(y), int(x)])]


def resized_box(box: np.ndarray, factor: float, size_hw: tuple[int, int]) -> np.ndarray:
    """(4,) box with its sides made longer or shorter about its middle, cut off at the image's edge.

    >>> resized_box(np.array([40, 40, 60, 80]), 2, (100, 200))
    array([ 30.,  20.,  70., 100.])
    """
    low, high = np.asarray(box, float).reshape(2, 2)
    middle, half = (low + high) / 2, factor * (high - low) / 2
    return np.clip([middle - half, middle + half], 0, size_hw[::-1]).ravel()


def empty_box(image: np.ndarray, truth: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """(4,) box on tissue without a lesion, a quarter as wide and high as the image; None where 300 draws find none.

    Args:
        image, truth: (H, W, 3) uint8, and (H, W) bool.
        rng: source of the draws.
    """
    height, width = truth.shape
    box_height, box_width = round(height / 4), round(width / 4)
    for _ in range(300):
        y, x = rng.integers(0, height - box_height + 1), rng.integers(0, width - box_width + 1)
        part = slice(y, y + box_height), slice(x, x + box_width)
        if not truth[part].any() and (image[part].max(axis=2) > _DARK).mean() > 0.9:
            return np.array([x, y, x + box_width, y + box_height], float)
    return None
