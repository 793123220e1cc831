"""Metrics of a mask against its reference in the original space: overlap, distance of the outlines.

All take two masks (H, W) bool, and raise `ShapeError` where their sizes differ, `DataError` where one is not bool.
Empty masks are defined, never NaN: two empty masks agree perfectly, an empty one against a filled one scores worst.
"""

import numpy as np
import scipy  # its modules load when they are first used

from medsam_helpers.errors import DataError, ShapeError


def _check(pred: np.ndarray, true: np.ndarray) -> None:
    if pred.shape != true.shape or pred.ndim != 2:
        raise ShapeError(f"masks must be (H, W) of one size, are {pred.shape} and {true.shape}")
    if pred.dtype != np.bool_ or true.dtype != np.bool_:
        raise DataError(f"masks must be bool, are {pred.dtype} and {true.dtype}; binarise them first")


def dice(pred: np.ndarray, true: np.ndarray) -> float:
    """Dice coefficient `2 |P & T| / (|P| + |T|)` of two (H, W) bool masks, in [0, 1]; 1 is perfect. Both empty: 1.

    >>> dice(np.array([[True, True]]), np.array([[True, False]]))
    0.6666666666666666
    """
    _check(pred, true)
    total = pred.sum() + true.sum()
    return float(2 * (pred & true).sum() / total) if total else 1.0


def iou(pred: np.ndarray, true: np.ndarray) -> float:
    """Intersection over union (Jaccard index) `|P & T| / |P | T|`, in [0, 1]; 1 is perfect. Both empty: 1."""
    _check(pred, true)
    union = (pred | true).sum()
    return float((pred & true).sum() / union) if union else 1.0


def score_mask(pred: np.ndarray, true: np.ndarray, tolerance_1024: float = 2.0) -> dict[str, float]:
    """All four metrics of one mask, by name: `dice`, `iou`, `hd95_percent`, `nsd`.

    `hd95_percent`: of the distances of each outline's pixels to the other outline the 95th percentile, of the two
    directions the larger, in percent of the image's diagonal: in [0, 100]; 0 is perfect. Both empty: 0. One empty: 100.
    `nsd`, normalised surface distance: the share of both outlines that lies within a tolerance of the other, in [0, 1];
    1 is perfect. Both empty: 1. One empty: 0.

    Args:
        tolerance_1024: tolerance in pixels of a model space of 1024 (2 is 0.2 % of the long side).
    Source: Nikolov et al., JMIR 2021, "surface Dice"; arXiv:1809.04430.
    """
    scores = {"dice": dice(pred, true), "iou": iou(pred, true)}
    if not (pred.any() and true.any()):
        return scores | {"hd95_percent": 100 * (1 - scores["dice"]), "nsd": scores["dice"]}
    found, expected = (scipy.spatial.KDTree(_outline(mask)) for mask in (pred, true))
    # For each pixel of an outline the distance to the other outline, in pixels: from pred, and from true.
    distances = [expected.query(found.data)[0], found.query(expected.data)[0]]
    hd95 = 100 * max(np.percentile(one, 95) for one in distances) / np.hypot(*true.shape)
    near = np.concatenate(distances) <= tolerance_1024 * max(true.shape) / 1024
    return scores | {"hd95_percent": float(hd95), "nsd": float(near.mean())}


def _outline(mask: np.ndarray) -> np.ndarray:
    """(N, 2) y, x of the mask's pixels with a 4-neighbour that is not in the mask, or not in the image."""
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.argwhere(mask & ~inside)
