"""What a model answers to a prompt, checked, and the small pictures of it that go to the browser."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from medsam_helpers.errors import ShapeError
from medsam_helpers.evaluation.metrics import dice

MAX_SHOWN = 2048  # longest side that is sent to the browser; masks and scores keep the original size


@dataclass(frozen=True)
class Answer:
    """One model's answer to all boxes and points on the canvas."""

    masks: np.ndarray  # (N, H, W) bool, original space; one a box, or a single one for points alone
    scores: np.ndarray | None  # (N,) the model's own guess of each mask's IoU; None if it has none
    dice: float | None  # of the union of the masks with the truth; None where the truth is not known
    seconds: float  # that the model took

    @property
    def mask(self) -> np.ndarray:
        """(H, W) bool: the union of the masks."""
        return np.any(self.masks, axis=0)

    def caption(self) -> str:
        """Scores and Dice in a line; the covered share of the image where there is neither."""
        parts = []
        if self.scores is not None:
            shown = [f"{score:.2f}" for score in self.scores[:6]] + ["..."] * (len(self.scores) > 6)
            parts.append(f"score {', '.join(shown)}")
        if self.dice is not None:
            parts.append(f"Dice {self.dice:.2f}")
        return " · ".join(parts) or f"{100 * self.mask.mean():.1f} % of the image"


def read_answer(result: Any, size_hw: tuple[int, int], truth: np.ndarray | None, seconds: float) -> Answer:
    """The `Answer` in what a predict function gave back; `ShapeError`: wrong masks, or not one score a mask."""
    masks, scores = result if isinstance(result, tuple) and len(result) == 2 else (result, None)
    masks = np.asarray(masks)
    masks = masks[None] if masks.ndim == 2 else masks
    if masks.dtype != np.bool_ or masks.ndim != 3 or masks.shape[1:] != size_hw or not len(masks):
        needed = f"bool masks (H, W) or (N, H, W) of the image's size {size_hw}"
        raise ShapeError(f"predict must give back {needed}, gave {masks.dtype} of shape {masks.shape}")
    if scores is not None:
        scores = np.asarray(scores, np.float64).reshape(-1)
        if len(scores) != len(masks):
            raise ShapeError(f"predict gave back {len(scores)} scores for {len(masks)} masks")
    return Answer(masks, scores, None if truth is None else dice(np.any(masks, axis=0), truth), seconds)


def image_png(image: np.ndarray) -> bytes:
    """An image (H, W, 3) uint8 as the browser gets it."""
    shown = Image.fromarray(image)
    shown.thumbnail((MAX_SHOWN, MAX_SHOWN), Image.Resampling.BILINEAR)
    return _png(shown)


def mask_layer(mask: np.ndarray) -> dict[str, Any] | None:
    """The part of a mask (H, W) bool that holds something, and its place in the picture shown; None if it is empty."""
    shown = Image.fromarray(mask)
    shown.thumbnail((MAX_SHOWN, MAX_SHOWN), Image.Resampling.NEAREST)
    if (box := shown.getbbox()) is None:
        return None
    return {"x": box[0], "y": box[1], "bytes": _png(shown.crop(box))}


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
