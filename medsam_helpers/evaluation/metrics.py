"""Metrics of a mask against its reference in the original space: overlap, distance of the outlines.

All take two masks (H, W) bool, and raise `ShapeError` where their sizes differ, `DataError` where one is not bool.
Empty masks are defined, never NaN: two empty masks agree perfectly, an empty one against a filled one scores worst.
"""

import warnings

import numpy as np
import torch

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
    distances = _surface_distances(pred, true)
    hd95 = 100 * max(np.percentile(one, 95) for one in distances) / np.hypot(*true.shape)
    near = np.concatenate(distances) <= tolerance_1024 * max(true.shape) / 1024
    return scores | {"hd95_percent": float(hd95), "nsd": float(near.mean())}


def _surface_distances(pred: np.ndarray, true: np.ndarray) -> list[np.ndarray]:
    """For each pixel of an outline the distance to the other outline, in pixels: from pred, and from true."""
    from monai.metrics.utils import get_edge_surface_distance  # here, since importing MONAI imports every tracker

    both = pred | true
    # The time goes with the area looked at: cut both to where either has something, with a rim for the outline.
    rows, columns = np.flatnonzero(both.any(axis=1)), np.flatnonzero(both.any(axis=0))
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    found, expected = (torch.from_numpy(np.pad(mask[window], 1)) for mask in (pred, true))
    with warnings.catch_warnings():
        # MONAI warns of an argument that it passes to itself.
        warnings.filterwarnings("ignore", category=FutureWarning, module="monai")
        _, distances, _ = get_edge_surface_distance(found, expected, symmetric=True, warn_empty=False)
    return [each.numpy() for each in distances]
