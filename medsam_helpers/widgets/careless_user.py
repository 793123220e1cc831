"""Mistakes of a simulated user: a box drawn too large, or elsewhere."""

import numpy as np

_DARK = 30  # gray values up to this are the recorder's black, not tissue


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

    The image is (H, W, 3) uint8, its truth (H, W) bool.
    """
    height, width = truth.shape
    box_height, box_width = round(height / 4), round(width / 4)
    for _ in range(300):
        y, x = rng.integers(0, height - box_height + 1), rng.integers(0, width - box_width + 1)
        part = slice(y, y + box_height), slice(x, x + box_width)
        if not truth[part].any() and (image[part].max(axis=2) > _DARK).mean() > 0.9:
            return np.array([x, y, x + box_width, y + box_height], float)
    return None
