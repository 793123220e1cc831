"""What comes into the box widget, models, boxes and points, checked and in one form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import traitlets as t

from medsam_helpers.errors import ConfigError, DataError, PromptError
from medsam_helpers.geometry import check_boxes, check_points
from medsam_helpers.sam.segmenter import Segmenter
from medsam_helpers.widgets.predictors import SegmenterPredictor

Predict = Callable[[np.ndarray, np.ndarray, np.ndarray], Any]
"""`predict(image, boxes, points)`: see `BoxPrompt`."""


class Rows(t.List):
    """A list trait that takes an array's rows too."""

    def validate(self, obj: t.HasTraits, value: Any) -> Any:
        return super().validate(obj, value.tolist() if isinstance(value, np.ndarray) else value)


def by_name(predict: Predict | Segmenter | Mapping[str, Predict | Segmenter]) -> dict[str, Predict]:
    """The models by name, each as a function `predict(image, boxes, points)`.

    Raises:
        ConfigError: there is none, or one that cannot be called.
    """
    if not isinstance(predict, Mapping):
        name = predict.info.name if isinstance(predict, Segmenter) else getattr(predict, "__name__", "model")
        predict = {name: predict}
    if not predict or not all(callable(each) or isinstance(each, Segmenter) for each in predict.values()):
        raise ConfigError(
            "predict must be a Segmenter, a function of (image, boxes, points), or a dict of them by name"
        )
    return {name: SegmenterPredictor(each) if isinstance(each, Segmenter) else each for name, each in predict.items()}


def check_image(image: np.ndarray, truth: np.ndarray | None, name: str) -> np.ndarray:
    """A copy of the image that nobody can write to, so that its embedding stays true.

    Raises:
        DataError: image or truth is of another kind, or they differ in size.
    """
    image = np.array(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise DataError(f"{name}: image must be (H, W, 3) uint8, is {image.shape} {image.dtype}")
    if truth is not None and (truth.dtype != np.bool_ or truth.shape != image.shape[:2]):
        raise DataError(f"{name}: truth must be (H, W) bool of the image's size, is {truth.shape} {truth.dtype}")
    image.flags.writeable = False
    return image


def as_boxes(boxes: Any, image: np.ndarray) -> list[list[float]]:
    """Boxes as the browser takes them, checked to lie inside the image."""
    if not len(boxes):
        return []
    return [[round(float(side), 2) for side in box] for box in check_boxes(boxes, image.shape[:2])]


def as_points(points: Any, image: np.ndarray) -> list[list[float]]:
    """Points of x, y, label as the browser takes them, checked likewise."""
    if not len(points):
        return []
    values = np.asarray(points, np.float64)
    if values.ndim != 2 or values.shape[1] != 3 or not np.isin(values[:, 2], (0, 1)).all():
        raise PromptError(f"points must be (K, 3) of x, y and label 1 or 0, got shape {values.shape}")
    check_points(values[:, :2], image.shape[:2])
    return [[round(x, 2), round(y, 2), int(label)] for x, y, label in values.tolist()]
