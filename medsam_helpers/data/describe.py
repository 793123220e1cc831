"""What a model will meet in a data set: size, place and brightness of its lesions."""

from __future__ import annotations

import pandas as pd
from scipy import ndimage
from tqdm.auto import tqdm

from medsam_helpers.data.case import Case, Dataset
from medsam_helpers.prompts import mask_to_boxes

_RIM_1024 = 20  # width of the rim round the lesion, in pixels of a model space of 1024
_BLACK = 24  # no channel above this: the recorder's black border, which is no tissue


def describe(dataset: Dataset, *, show_progress: bool = True) -> pd.DataFrame:
    """One row a case: its split, and what `describe_case` says of it.

    Args:
        dataset: every case is decoded once.
        show_progress: show the bar.
    """
    places = [(split, cases, number) for split, cases in dataset.splits.items() for number in range(len(cases))]
    bar = tqdm(places, "describe", unit="case", disable=not show_progress)
    return pd.DataFrame(
        {"case": (case := cases[number]).name, "split": split} | describe_case(case) for split, cases, number in bar
    )


def describe_case(case: Case) -> dict[str, float]:
    """Size, place and brightness of one case's lesion.

    Args:
        case: with a mask that is not empty.
    Returns:
        `height`, `width` in pixels; `lesion_share` of the image in [0, 1]; `lesions`, the connected components that
        `mask_to_boxes` counts; `centre_x`, `centre_y`, the lesion's centre of mass as shares of width and height;
        `lesion_gray` and `rim_gray`, mean gray value (0 to 255) of the lesion and of a rim of 20 pixels (at a long
        side of 1024) round it, the recorder's black left out; NaN where no rim is left.
    Raises:
        PromptError: the mask is empty.
    """
    height, width = case.size_hw
    lesions = len(mask_to_boxes(case.mask, "components"))
    y, x = ndimage.center_of_mass(case.mask)
    gray = case.image.mean(axis=2)
    near = ndimage.distance_transform_edt(~case.mask) <= _RIM_1024 * max(case.size_hw) / 1024
    rim = near & ~case.mask & (case.image.max(axis=2) > _BLACK)
    return {
        "height": height,
        "width": width,
        "lesion_share": float(case.mask.mean()),
        "lesions": lesions,
        "centre_x": float(x + 0.5) / width,
        "centre_y": float(y + 0.5) / height,
        "lesion_gray": float(gray[case.mask].mean()),
        "rim_gray": float(gray[rim].mean()) if rim.any() else float("nan"),
    }
