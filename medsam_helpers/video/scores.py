"""Scores of a sequence of masks, and the answers that look at no frame after the first."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from medsam_helpers.errors import ShapeError
from medsam_helpers.evaluation.metrics import dice, iou
from medsam_helpers.evaluation.predictors import fill_ellipse
from medsam_helpers.prompts import mask_to_boxes

LOST = 0.5
"""Below this Dice a frame counts as lost."""


def outline_f(mask: np.ndarray, truth: np.ndarray) -> float:
    """The F of two masks' outlines (H, W) bool, in [0, 1]: 1 is perfect, both empty: 1, one empty: 0.

    Precision is the share of the mask's outline within 0.8 % of the image's diagonal of the other, recall the reverse.
    Source: Perazzi et al., CVPR 2016; doi:10.1109/CVPR.2016.85.
    """
    outlines = [one & ~ndimage.binary_erosion(one) for one in (mask, truth)]
    if not (mask.any() and truth.any()):
        return float(mask.any() == truth.any())
    near = [ndimage.distance_transform_edt(~one) <= 0.008 * np.hypot(*truth.shape) for one in outlines]
    precision, recall = (float(near[1 - side][outlines[side]].mean()) for side in (0, 1))
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def score_sequence(masks: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> dict[str, float]:
    """Scores of the masks of a video, frame by frame in its order; NaN where no frame is of the kind.

    Args:
        masks, truths: (H, W) bool each. Leave frames out in which the mask was given.
    Returns:
        Over the frames that show the lesion the means `dice`, `J` (the IoU) and `F` (see `outline_f`), the share of
        frames `above_0.8` by Dice, and `lost_at`, the place of the first one with a Dice below 0.5; over the others
        `rightly_empty`, the share of empty masks.
    Raises:
        ShapeError: not one mask a truth.
    """
    if len(masks) != len(truths):
        raise ShapeError(f"{len(masks)} masks for {len(truths)} frames")
    pairs = list(zip(masks, truths, strict=True))
    seen = np.array([truth.any() for truth in truths], bool)
    dices, empty = np.array([dice(*pair) for pair in pairs]), np.array([not mask.any() for mask in masks], bool)
    shown = [pair for pair in pairs if pair[1].any()]
    lost = np.flatnonzero(seen & (dices < LOST))
    return {
        "dice": _mean(dices[seen]),
        "J": _mean([iou(*pair) for pair in shown]),
        "F": _mean([outline_f(*pair) for pair in shown]),
        "above_0.8": _mean(dices[seen] > 0.8),
        "rightly_empty": _mean(empty[~seen]),
        "lost_at": float(lost[0]) if len(lost) else np.nan,
    }


def _mean(values: Sequence[float] | np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else np.nan


def baselines(first: np.ndarray) -> dict[str, np.ndarray]:
    """The masks (H, W) bool that see no later frame, by name: the `first` one copied, the ellipse in its box."""
    return {"first mask copied": first, "ellipse stays": fill_ellipse(mask_to_boxes(first)[0], first.shape[:2])}
