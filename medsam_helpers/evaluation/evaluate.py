"""From models and cases to a table of scores, beside baselines that fill the box, or the ellipse inside it."""

import warnings
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from medsam_helpers.data.case import Case
from medsam_helpers.errors import ConfigError, DataError, some
from medsam_helpers.evaluation.metrics import score_mask
from medsam_helpers.evaluation.predictors import BASELINES, Model, answers, case_boxes, fill_box, found_alone
from medsam_helpers.evaluation.tables import COLUMNS, GROUP
from medsam_helpers.prompts import read_prompt
from medsam_helpers.settings import BoxMode


def evaluate(
    cases: Sequence[Case],
    models: Mapping[str, Model],
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
        models: predictors or segmenters by name; each is called once a case with the boxes of all prompts.
        prompts: "exact", or "jN" for boxes whose sides moved by up to N pixels of a model space of 1024; with "+centre"
            behind it a click in the middle of what the box holds of the lesion. "clicks:N" gives N prompts, "clicks:1"
            to "clicks:N": each click goes to the largest mistake; the baselines' first box is a square about it, a
            tenth of the image. "none": the models find the lesions by themselves; those that cannot, and the
            baselines, are given a box round the image.
        box_mode: "union": one box a case. "components": one a lesion; the union of the masks is scored, and the mean
            of the IoU scores is kept. "labels": one a label.
        group_of: case -> its patient or video, a column `group` then, which intervals heed; see `Dataset.group_of`.
    Returns:
        The columns `COLUMNS`; areas in pixels, metrics in the original space, `iou_score` NaN for the baselines. Cases
        without a lesion cannot be prompted: `table.attrs["left_out"]` lists their names. `table.attrs["missed"]` lists
        case and prompt where a jittered box holds nothing of the lesion: it is scored all the same.
        With "none" `table.attrs["boxed"]` lists the models that were given a box round the image.
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
            for prompt, mask, iou_score in answers(model, predictor, case, asked, boxes):
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
    if "none" in asked:
        table.attrs["boxed"] = [name for name, model in models.items() if getattr(model, "needs_prompt", True)]
    return table


def false_positives(cases: Iterable[Case], predictor: Model) -> dict[str, float]:
    """What a model that needs no prompt, see `found_alone`, finds in the images without a lesion; others are left out.

    Returns:
        `normal`, how many there are; `false_positives`, in how many it finds something; `false_positive_share`, the
        mean share of their area in [0, 1]. Nothing where there are none. `findings` reads them in `table.attrs`.
    """
    normal = (case for case in cases if not case.mask.any())
    shares = [case.counted(found_alone(predictor, case)[0][0]).mean() for case in normal]
    if not shares:
        return {}
    share = round(float(np.mean(shares)), 6)
    return {"normal": len(shares), "false_positives": int(np.count_nonzero(shares)), "false_positive_share": share}
