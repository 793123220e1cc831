"""From models and cases to a table of scores, beside baselines that fill the box, or the ellipse inside it."""

import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from medsam_helpers.data.case import Case
from medsam_helpers.errors import ConfigError, DataError, ShapeError, some
from medsam_helpers.evaluation.metrics import score_mask
from medsam_helpers.evaluation.tables import COLUMNS, GROUP
from medsam_helpers.prompts import (
    Prompt,
    correcting_click,
    deepest_pixel,
    jitter_boxes,
    mask_to_boxes,
    read_prompt,
    whole_image,
)
from medsam_helpers.settings import BoxMode

Predictor = Callable[..., tuple[np.ndarray, np.ndarray]]
"""Case and boxes (N, 4) float, original space -> masks (N, H, W) bool, the model's own IoU scores (N,).

For "+centre" it is also given points (N, 2), one a box. A `Segmenter` takes every prompt, clicks and none too.
"""


def fill_box(box: np.ndarray, hw: tuple[int, int]) -> np.ndarray:
    """(H, W) bool mask of the pixels whose centre lies in the half-open box `[x0, y0, x1, y1)`.

    >>> fill_box(np.array([1, 0, 3, 1]), (2, 4)).astype(int)
    array([[0, 1, 1, 0],
           [0, 0, 0, 0]])
    """
    y, x = np.ogrid[: hw[0], : hw[1]]
    x0, y0, x1, y1 = box
    return (x + 0.5 >= x0) & (x + 0.5 < x1) & (y + 0.5 >= y0) & (y + 0.5 < y1)


def fill_ellipse(box: np.ndarray, hw: tuple[int, int]) -> np.ndarray:
    """(H, W) bool mask of the pixels whose centre lies in the ellipse inscribed in the box."""
    y, x = np.ogrid[: hw[0], : hw[1]]
    x0, y0, x1, y1 = box
    return ((2 * x + 1 - x0 - x1) / (x1 - x0)) ** 2 + ((2 * y + 1 - y0 - y1) / (y1 - y0)) ** 2 <= 1


def _baseline(fill: Callable[[np.ndarray, tuple[int, int]], np.ndarray]) -> Predictor:
    return lambda case, boxes, points=None: (
        np.array([fill(box, case.size_hw) for box in boxes]),
        np.full(len(boxes), np.nan),
    )


WITH_TTA = " with tta"  # behind the name of a base model that was scored with test-time augmentation
BASELINES: dict[str, Predictor] = {"box": _baseline(fill_box), "ellipse": _baseline(fill_ellipse)}


def evaluate(
    cases: Sequence[Case],
    models: Mapping[str, Predictor],
    *,
    prompts: Sequence[str] = ("exact", "j20", "j50"),
    seed: int = 0,
    box_mode: BoxMode = "union",
    group_of: Mapping[str, str] | None = None,
    show_progress: bool = True,
) -> pd.DataFrame:
    """Table of scores, one row a case, model and prompt, the baselines `box` and `ellipse` among the models.

    The jitter of a case is one draw, fixed by `seed` and the case's name: it depends neither on the order nor on the
    other cases, and `j50` is the draw of `j20`, 2.5 times as far.

    Args:
        cases: what to evaluate on, with reference masks.
        models: predictors or segmenters by name; each is called once a case with the boxes of all prompts.
        prompts: "exact", or "jN" for boxes whose sides moved by up to N pixels of a model space of 1024; with "+centre"
            behind it a click in the middle of what the box holds of the lesion. "clicks:N" gives N prompts, "clicks:1"
            to "clicks:N": each click goes to the largest mistake; the baselines' first box is a square about it, a
            tenth of the image. "none": the models find the lesions by themselves; those that cannot, and the
            baselines, are given a box round the image.
        seed: of the jitter.
        box_mode: "union": one box a case. "components": one a lesion; the union of the masks is scored, and the mean
            of the IoU scores is kept. "labels": one a label.
        group_of: case -> its patient or video, a column `group` then, which intervals heed; see `Dataset.group_of`.
        show_progress: show the bar.
    Returns:
        The columns `COLUMNS`; areas in pixels, metrics in the original space, `iou_score` NaN for the baselines. Cases
        without a lesion cannot be prompted: `table.attrs["left_out"]` lists their names. `table.attrs["missed"]` lists
        case and prompt where a jittered box holds nothing of the lesion: it is scored all the same.
    Raises:
        ConfigError: a prompt is unknown, a model has a baseline's name, or takes boxes only.
        DataError: no case has a lesion.
        ShapeError: a predictor gave something else than a bool mask and a score for each box.
    """
    asked = {name: read_prompt(name) for name in prompts}
    jitters = {name: prompt.jitter_1024 for name, prompt in asked.items() if prompt.jitter_1024 is not None}
    if taken := BASELINES.keys() & models.keys():
        raise ConfigError(f"{', '.join(sorted(taken))}: this is a baseline's name; call the model something else")
    rows, left_out, missed = [], [], []
    for case in tqdm(cases, desc="evaluate", unit="case", disable=not show_progress):
        if not case.mask.any():
            left_out.append(case.name)
            continue
        boxes = {name: case_boxes(case, box_mode, jitter, seed) for name, jitter in jitters.items()}
        for prompt, drawn in boxes.items():
            if not all((case.mask & fill_box(box, case.size_hw)).any() for box in drawn):
                missed.append(f"{case.name} ({prompt})")
        for model, predictor in {**BASELINES, **models}.items():
            for prompt, mask, iou_score in _answers(model, predictor, case, asked, boxes):
                key = {"case": case.name, "model": model, "prompt": prompt, "seed": seed}
                areas = {"area_true": int(case.mask.sum()), "area_pred": int(mask.sum()), "iou_score": iou_score}
                rows.append(key | score_mask(mask, case.mask) | areas)
    if left_out:
        warnings.warn(f"left out, since an empty mask gives no box: {some(left_out)}", stacklevel=2)
    if not rows:
        raise DataError(f"nothing to evaluate: none of the {len(left_out)} cases has a lesion in its mask")
    table = pd.DataFrame(rows, columns=COLUMNS)
    if group_of:
        table[GROUP] = table["case"].map(group_of)
    table.attrs |= {"left_out": left_out, "missed": missed}
    return table


def found_alone(predictor: Any, case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Mask (1, H, W) and score (1,) without a prompt; of a predictor that needs one, for a box round the image."""
    predict = getattr(predictor, "predict_case", predictor)
    return predict(case, whole_image(case.size_hw) if getattr(predictor, "needs_prompt", True) else None)


def false_positives(cases: Iterable[Case], predictor: Any) -> dict[str, float]:
    """What a model that needs no prompt finds in the images without a lesion; the others are left out.

    Args:
        predictor: a `Segmenter` that needs none, or a function that does not look at its box: see `found_alone`.
    Returns:
        `normal`, how many there are; `false_positives`, in how many it finds something; `false_positive_share`, the
        mean share of their area in [0, 1]. Nothing where there are none. `findings` reads them in `table.attrs`.
    """
    shares = []
    for case in cases:
        if not case.mask.any():
            masks, _ = found_alone(predictor, case)
            shares.append(float(case.counted(masks[0]).mean()))
    if not shares:
        return {}
    share = round(float(np.mean(shares)), 6)
    return {"normal": len(shares), "false_positives": int(np.count_nonzero(shares)), "false_positive_share": share}


def case_boxes(case: Case, box_mode: BoxMode, jitter_1024: float, seed: int) -> np.ndarray:
    """(N, 4) float32 boxes of a case with its one fixed draw of jitter, original space; the jitter scales the draw."""
    name = int.from_bytes(hashlib.sha256(case.name.encode()).digest()[:8], "big")
    rng = np.random.default_rng([seed, name])
    return jitter_boxes(mask_to_boxes(case.regions, box_mode), case.size_hw, jitter_1024, rng)


def centres(mask: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(N, 2) float32 a click in the middle of what each of N boxes holds of a mask; if that is nothing, of the box."""
    inside = [mask & fill_box(box, mask.shape) for box in boxes]
    return np.array(
        [
            deepest_pixel(part if part.any() else fill_box(box, mask.shape))
            for part, box in zip(inside, boxes, strict=True)
        ]
    )


def _answers(
    model: str, predictor: Any, case: Case, asked: Mapping[str, Prompt], boxes: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, np.ndarray, float]]:
    """For each prompt its name, the union of its boxes' masks, and the mean of their scores."""
    predict = getattr(predictor, "predict_case", predictor)
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
                yield from _united(model, case, {"clicks:1": 1}, predict(case, _square(case)))
            elif not hasattr(predictor, "predict_clicks"):
                raise ConfigError(f"{model} takes boxes only: for the prompt {name} pass a Segmenter")
            else:
                counts = {f"clicks:{number}": 1 for number in range(1, prompt.clicks + 1)}
                yield from _united(model, case, counts, predictor.predict_clicks(case, prompt.clicks))
        elif name not in boxes:
            yield from _united(model, case, {name: 1}, found_alone(predictor, case))


def _square(case: Case) -> np.ndarray:
    """(1, 4) the square about the first click, a tenth of the image."""
    click = correcting_click(np.zeros_like(case.mask), case.mask)
    assert click is not None
    half = np.sqrt(case.mask.size / 10) / 2
    return np.array([[click[0] - half, click[1] - half, click[0] + half, click[1] + half]])


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
