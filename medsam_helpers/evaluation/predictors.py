"""How a model is asked about a case: the predictors, those that fill the box or its ellipse, and their answers."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from medsam_helpers.data.case import Case
from medsam_helpers.errors import ConfigError, ShapeError
from medsam_helpers.geometry import fill_box
from medsam_helpers.prompts import Prompt, correcting_click, deepest_pixel, jitter_boxes, mask_to_boxes, whole_image
from medsam_helpers.settings import BoxMode

if TYPE_CHECKING:
    from medsam_helpers.sam.segmenter import Segmenter

Predictor = Callable[..., tuple[np.ndarray, np.ndarray]]
"""Case and boxes (N, 4) float, original space -> masks (N, H, W) bool, the model's own IoU scores (N,).

For "+centre" it is also given points (N, 2), one a box.
"""
Model: TypeAlias = "Predictor | Segmenter"  # what is scored; a `Segmenter` takes every prompt, clicks and none too


def fill_ellipse(box: np.ndarray, hw: tuple[int, int]) -> np.ndarray:
    """(H, W) bool mask of the pixels whose centre lies in the ellipse inscribed in the box."""
    y, x = np.ogrid[: hw[0], : hw[1]]
    x0, y0, x1, y1 = box
    return ((2 * x + 1 - x0 - x1) / (x1 - x0)) ** 2 + ((2 * y + 1 - y0 - y1) / (y1 - y0)) ** 2 <= 1


def _baseline(fill: Callable[[np.ndarray, tuple[int, int]], np.ndarray]) -> Predictor:
    return lambda case, boxes, *_: (np.array([fill(box, case.size_hw) for box in boxes]), np.full(len(boxes), np.nan))


WITH_TTA = " with tta"  # behind the name of a base model that was scored with test-time augmentation
BASELINES: dict[str, Predictor] = {"box": _baseline(fill_box), "ellipse": _baseline(fill_ellipse)}


def case_boxes(case: Case, box_mode: BoxMode, jitter_1024: float, seed: int) -> np.ndarray:
    """(N, 4) float32 boxes of a case with its one fixed draw of jitter, original space; the jitter scales the draw."""
    name = int.from_bytes(hashlib.sha256(case.name.encode()).digest()[:8], "big")
    rng = np.random.default_rng([seed, name])
    return jitter_boxes(mask_to_boxes(case.regions, box_mode), case.size_hw, jitter_1024, rng)


def centres(mask: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(N, 2) float32 a click in the middle of what each of N boxes holds of a mask; if that is nothing, of the box."""
    filled = [fill_box(box, mask.shape) for box in boxes]
    return np.array([deepest_pixel(part & mask if (part & mask).any() else part) for part in filled])


def found_alone(predictor: Model, case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Mask (1, H, W) and score (1,) without a prompt; of a predictor that needs one, for a box round the image."""
    predict: Any = getattr(predictor, "predict_case", predictor)
    return predict(case, whole_image(case.size_hw) if getattr(predictor, "needs_prompt", True) else None)


def answers(
    model: str, predictor: Model, case: Case, asked: Mapping[str, Prompt], boxes: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, np.ndarray, float]]:
    """For each prompt its name, the union of its boxes' masks, and the mean of their scores."""
    predict: Any = getattr(predictor, "predict_case", predictor)
    plain = {name: drawn for name, drawn in boxes.items() if not asked[name].centre}
    if plain:  # in one call: several boxes on one image cost little more than one
        found = predict(case, np.concatenate(list(plain.values())))
        yield from _united(model, case, {name: len(drawn) for name, drawn in plain.items()}, found)
    for name, prompt in asked.items():
        if prompt.centre:
            found = predict(case, boxes[name], centres(case.mask, boxes[name]))
            yield from _united(model, case, {name: len(boxes[name])}, found)
        elif prompt.clicks:
            if model in BASELINES:
                x, y, _ = correcting_click(np.zeros_like(case.mask), case.mask) or (0, 0, 0)
                half = np.sqrt(case.mask.size / 10) / 2  # of a square about the first click, a tenth of the image
                square = np.array([[x - half, y - half, x + half, y + half]])
                yield from _united(model, case, {"clicks:1": 1}, predict(case, square))
            elif not hasattr(predictor, "predict_clicks"):
                raise ConfigError(f"{model} takes boxes only: for the prompt {name} pass a Segmenter")
            else:
                counts = {f"clicks:{number}": 1 for number in range(1, prompt.clicks + 1)}
                yield from _united(model, case, counts, predictor.predict_clicks(case, prompt.clicks))
        elif name not in boxes:
            yield from _united(model, case, {name: 1}, found_alone(predictor, case))


def _united(
    model: str, case: Case, counts: Mapping[str, int], found: tuple[np.ndarray, np.ndarray]
) -> Iterator[tuple[str, np.ndarray, float]]:
    """The answers, checked, so many of them taken together for each prompt."""
    masks, scores = map(np.asarray, found)
    total = sum(counts.values())
    wanted = (total, *case.size_hw)
    if masks.dtype != np.bool_ or masks.shape != wanted or scores.shape != wanted[:1]:
        got = f"{masks.dtype} {masks.shape} and {scores.shape}"
        needed = f"{total} boxes need bool masks {wanted} and scores {wanted[:1]}"
        raise ShapeError(f"{model} on {case.name}: {needed}, got {got}")
    first = 0
    for name, count in counts.items():
        group = slice(first, first := first + count)
        yield name, case.counted(np.logical_or.reduce(masks[group])), float(scores[group].mean())
