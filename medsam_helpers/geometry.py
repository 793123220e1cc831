"""The three coordinate spaces of an image, and the only code that converts between them.

*original*: the pixels as they came. *model*: long side scaled to the encoder's input size, padded right and bottom
to a square; SAM 2 squashes the image to the square and pads nothing. *mask*: the decoder's output grid, which covers
the model space. Image, mask, boxes and points all take the model's way; what takes the other lands somewhere else
unless the image is square.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from medsam_helpers.errors import PromptError, ShapeError


@dataclass(frozen=True)
class ImageTransform:
    """Conversions between the coordinate spaces of one image size.

    Args:
        original_hw: height and width of the image in pixels.
        model_size: side of the encoder's square input (1024; 256 for `lite-medsam`).
        mask_size: side of the decoder's square output (256).
        squashed: both sides are scaled to `model_size`, each by its own factor, as SAM 2 does.

    >>> ImageTransform((300, 600)).to_model(np.array([0, 0, 600, 300]))
    array([   0.,    0., 1024.,  512.], dtype=float32)
    """

    original_hw: tuple[int, int]
    model_size: int = 1024
    mask_size: int = 256
    squashed: bool = False

    @property
    def resized_hw(self) -> tuple[int, int]:
        """Size of the image in the model space, before padding; rounded as `SamProcessor` does, a pixel at least."""
        if self.squashed:
            return self.model_size, self.model_size
        scale = self.model_size / max(self.original_hw)
        return max(1, int(self.original_hw[0] * scale + 0.5)), max(1, int(self.original_hw[1] * scale + 0.5))

    def covered_hw(self, side: int) -> tuple[float, float]:
        """Height and width of the image's part of a grid of `side` x `side` cells over the padded model space."""
        height, width = self.resized_hw
        return height * side / self.model_size, width * side / self.model_size

    def to_grid(self, coordinates: np.ndarray, side: int) -> np.ndarray:
        """As `to_model`, in cells of a grid of `side` x `side` cells over the padded model space."""
        return self._scaled(coordinates, self._scale_xy * np.float32(side / self.model_size))

    def to_model(self, coordinates: np.ndarray) -> np.ndarray:
        """Points `(..., 2)` xy or boxes `(..., 4)` xyxy of the original space, in the model space (float32)."""
        return self.to_grid(coordinates, self.model_size)

    def to_original(self, coordinates: np.ndarray) -> np.ndarray:
        """Inverse of `to_model`."""
        return self._scaled(coordinates, 1 / self._scale_xy)

    @property
    def _scale_xy(self) -> np.ndarray:
        return np.divide(self.resized_hw, self.original_hw)[::-1].astype(np.float32)

    @staticmethod
    def _scaled(coordinates: np.ndarray, scale_xy: np.ndarray) -> np.ndarray:
        pairs = np.asarray(coordinates, np.float32)
        return (pairs.reshape(*pairs.shape[:-1], -1, 2) * scale_xy).reshape(pairs.shape)

    def image_to_model(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 -> (h, w, 3) uint8, resized with Pillow's bilinear filter, not yet padded."""
        self._check(image)
        return np.asarray(Image.fromarray(image).resize(self.resized_hw[::-1], Image.Resampling.BILINEAR))

    def mask_to_target(self, mask: np.ndarray, size: int | None = None) -> torch.Tensor:
        """The reference mask (H, W) bool in the mask space, for the loss: (size, size) float32 in {0, 1}.

        It is resized and padded as the image is, then reduced to the mask grid by area: a cell belongs to the lesion
        when at least half of it does. `size`, by default `mask_size`, is the side of a grid over the padded space.
        """
        self._check(mask)
        size = size or self.mask_size
        finer = max(1, -(-size // self.model_size))  # a grid finer than the model space: that many cells a pixel
        height, width, side = (finer * side for side in (*self.resized_hw, self.model_size))
        resized = Image.fromarray(mask.astype(np.uint8) * 255).resize((width, height), Image.Resampling.BILINEAR)
        padded = F.pad(torch.from_numpy(np.asarray(resized, np.float32) / 255), (0, side - width, 0, side - height))
        return (F.adaptive_avg_pool2d(padded[None], size)[0] >= 0.5).float()

    def logits_to_original(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits (N, M, h, w) of the mask space, interpolated to the original space: (N, M, H, W) float32.

        As `SamProcessor.post_process_masks`: enlarge to the padded model space, cut the padding off, resize. Of a
        squashed image as `Sam2Processor` does: resize.
        """
        logits, (height, width) = logits.float(), self.resized_hw
        if not self.squashed:
            logits = F.interpolate(logits, (self.model_size,) * 2, mode="bilinear", align_corners=False)
            logits = logits[..., :height, :width]
        return F.interpolate(logits, self.original_hw, mode="bilinear", align_corners=False)

    def _check(self, array: np.ndarray) -> None:
        if array.shape[:2] != tuple(self.original_hw):
            raise ShapeError(f"transform is for {self.original_hw} pixels (H, W), the array is {array.shape[:2]}")


def check_boxes(boxes: np.ndarray, original_hw: tuple[int, int]) -> np.ndarray:
    """(N, 4) float32 of one box (4,) or several (N, 4), half-open xyxy, original space, checked to lie in the image.

    `PromptError` names the first that does not, is empty or not finite, and what is wrong with it.
    """
    boxes, (height, width) = _numbers("boxes", boxes), original_hw
    if boxes.ndim not in (1, 2) or boxes.shape[-1] != 4 or boxes.size == 0:
        raise PromptError(f"boxes must be one (4,) or several (N, 4) of x0 y0 x1 y1, got shape {boxes.shape}")
    for box in boxes.reshape(-1, 4):
        shown = " ".join(f"{v:g}" for v in box)
        if not np.isfinite(box).all():
            raise PromptError(f"box {shown}: every side must be a finite number")
        if (box[2:] <= box[:2]).any():
            raise PromptError(f"box {shown} is empty: x1 must be greater than x0, and y1 than y0")
        if (box <= 1).all() and (box % 1).any():
            raise PromptError(f"box {shown} looks normalised: multiply x by the width, {width}, and y by {height}")
        if (box[2:] - box[:2] < 0.99).any():  # a pixel, in float32
            raise PromptError(f"box {shown} is smaller than a pixel: boxes are given in pixels of the original image")
        if (box[:2] < 0).any() or box[2] > width or box[3] > height:
            raise PromptError(f"box {shown} leaves the image, which is {width} wide and {height} high")
    return boxes.reshape(-1, 4)


def _numbers(what: str, given: Any) -> np.ndarray:
    try:
        return np.asarray(given, np.float32)
    except (TypeError, ValueError) as error:
        raise PromptError(f"{what} must be numbers, in rows of one length: {error}") from None


def check_points(points: np.ndarray, original_hw: tuple[int, int]) -> np.ndarray:
    """(K, 2) float32 xy points, checked to lie inside the image; a `PromptError` names the first that does not.

    Given are one (2,), several (K, 2), or several of each of N prompts (N, K, 2), which come back as (N K, 2).
    """
    points, (height, width) = _numbers("points", points), original_hw
    if points.ndim not in (1, 2, 3) or points.shape[-1] != 2 or points.size == 0:
        raise PromptError(f"points must be one (2,), several (K, 2) or (N, K, 2) of x y, got shape {points.shape}")
    for x, y in points.reshape(-1, 2):
        if not (0 <= x < width and 0 <= y < height):
            raise PromptError(f"point {x:g} {y:g} lies outside the image, which is {width} wide and {height} high")
    return points.reshape(-1, 2)


def grid_to_model(prompts: np.ndarray, side: int, model_size: int) -> np.ndarray:
    """Boxes (..., 4) or points (..., 2) of a grid over the padded model space, in that space; float32, see `mirror`.

    >>> grid_to_model(np.array([0, 255]), side=256, model_size=1024)
    array([   1.5, 1021.5], dtype=float32)
    """
    middle = 0.5 if np.shape(prompts)[-1] == 2 else 0  # of the pixel that a point names; a box's sides lie between
    return ((np.asarray(prompts) + middle) * (model_size / side) - middle).astype(np.float32)


def mirror(prompts: np.ndarray, width: int) -> np.ndarray:
    """Boxes `(..., 4)` half-open xyxy, or points `(..., 2)` xy, where they lie in the mirror image.

    A box's sides lie between pixels, 0 to `width`; a point names a pixel, 0 to `width - 1`.
    """
    turned = np.array(prompts, np.float32)
    if turned.shape[-1] == 4:
        turned[..., [0, 2]] = width - turned[..., [2, 0]]
    else:  # a point may lie up to a pixel beyond the last index
        turned[..., 0] = np.maximum(width - 1 - turned[..., 0], 0)
    return turned


def fill_box(box: np.ndarray, hw: tuple[int, int]) -> np.ndarray:
    """(H, W) bool mask of the pixels whose centre lies in the half-open box `[x0, y0, x1, y1)`.

    >>> fill_box(np.array([1, 0, 3, 1]), (2, 4)).astype(int)
    array([[0, 1, 1, 0],
           [0, 0, 0, 0]])
    """
    y, x = np.ogrid[: hw[0], : hw[1]]
    x0, y0, x1, y1 = box
    return (x + 0.5 >= x0) & (x + 0.5 < x1) & (y + 0.5 >= y0) & (y + 0.5 < y1)
