"""What comes into the box widget, checked and in one form: models, image, boxes and points."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import traitlets as t

from medsam_helpers.data.case import Case
from medsam_helpers.errors import ConfigError, PromptError
from medsam_helpers.geometry import check_boxes, check_points
from medsam_helpers.sam.segmenter import Segmenter
from medsam_helpers.widgets.predictors import SegmenterPredictor, on_model_thread

Predict = Callable[[np.ndarray, np.ndarray, np.ndarray], Any]
"""`predict(image, boxes, points)`: see `BoxPrompt`."""
Model = str | Path | Segmenter | Predict
"""A name or folder that `Segmenter.load` takes, a `Segmenter`, or a function `predict(image, boxes, points)`."""
Models = Model | Mapping[str, Model]


class Rows(t.List):
    """A trait of boxes or points, as lists or as an array, checked against the `image` of its widget."""

    def __init__(self, check: Callable[[Any, np.ndarray], list]) -> None:
        super().__init__()
        self._check = check

    def validate(self, obj: Any, value: Any) -> list:
        return self._check(value, obj.image) if len(value) else []


def as_predict(model: Model) -> Predict:
    """The model as a function `predict(image, boxes, points)`, loaded if it is a name; `ConfigError`: it is none."""
    if isinstance(model, str | Path):
        return SegmenterPredictor(on_model_thread(Segmenter.load, model), source=model)
    if isinstance(model, Segmenter):
        return SegmenterPredictor(model)
    if not callable(model):
        raise ConfigError("predict must be a Segmenter, a function of (image, boxes, points), or a dict of them")
    return model


def by_name(predict: Models) -> dict[str, Predict]:
    """One model or several by name, as `as_predict` gives them; a `ConfigError` where there is none."""
    if not isinstance(predict, Mapping):
        name = predict.info.name if isinstance(predict, Segmenter) else getattr(predict, "__name__", "model")
        predict = {name: predict}
    if not predict:
        raise ConfigError("there is no model: the dict is empty")
    return {name: as_predict(each) for name, each in predict.items()}


def check_image(image: np.ndarray, truth: np.ndarray | None, name: str) -> np.ndarray:
    """A read-only copy of the image, so that its embedding stays true; a `DataError` where image or truth are bad."""
    image = np.array(image)
    Case(name, image, np.zeros(image.shape[:2], bool) if truth is None else truth)
    image.flags.writeable = False
    return image


def as_boxes(boxes: Any, image: np.ndarray) -> list[list[float]]:
    """Boxes as the browser takes them; `PromptError`: one is no box of (4,) xyxy inside the image."""
    checked = check_boxes(boxes, image.shape[:2]).tolist() if len(boxes) else []
    return [[round(side, 2) for side in box] for box in checked]


def as_points(points: Any, image: np.ndarray) -> list[list[float]]:
    """Points (K, 3) of x, y, label as the browser takes them; `PromptError`: likewise."""
    if not len(points):
        return []
    values = np.asarray(points, np.float64)
    if values.ndim != 2 or values.shape[1] != 3 or not np.isin(values[:, 2], (0, 1)).all():
        raise PromptError(f"points must be (K, 3) of x, y and label 1 or 0, got shape {values.shape}")
    check_points(values[:, :2], image.shape[:2])
    return [[round(x, 2), round(y, 2), int(label)] for x, y, label in values.tolist()]
