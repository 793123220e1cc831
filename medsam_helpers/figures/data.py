"""Pictures and a table of a data set: its cases, the coordinate spaces they travel through, two masks on one grid."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from scipy import ndimage
from tqdm.auto import tqdm

from medsam_helpers.data.case import Case, Dataset
from medsam_helpers.figures.cases import COLORS, draw_boxes, draw_mask, show_case
from medsam_helpers.geometry import ImageTransform
from medsam_helpers.prompts import mask_to_boxes

# Of the palette that `cases.COLORS` is from: what went the wrong way; data at hand, and data that was recorded.
STRETCHED, AT_HAND, RECORDED = "#D55E00", "#666666", "#CC79A7"
_RIM_1024 = 20  # width of the rim round the lesion, in pixels of a model space of 1024
_BLACK = 24  # no channel above this: the recorder's black border, which is no tissue


def case_grid(rows: Mapping[str, Sequence[Case]]) -> Figure:
    """A figure with a titled row for each list of cases: their references outlined, their sizes as width x height."""
    columns = max(map(len, rows.values()))
    figure = Figure(figsize=(1.75 * columns, 1.85 * len(rows)), layout="constrained")
    parts = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for part, (name, cases) in zip(parts, rows.items(), strict=True):
        part.suptitle(name, fontsize=11)
        axes = part.subplots(1, columns, squeeze=False)[0]
        for ax in axes:
            ax.set_axis_off()
        for ax, case in zip(axes, cases, strict=False):
            height, width = case.size_hw
            show_case(ax, case.image, truth=case.mask, title=f"{width} x {height}")
    return figure


def three_spaces(case: Case, box: np.ndarray, transform: ImageTransform) -> Figure:
    """A figure of a case in original, model and mask space, the same lesion and box, (4,) xyxy (original), in each."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    original, model, mask = axes = figure.subplots(1, 3)
    (height, width), side = case.size_hw, transform.model_size
    show_case(original, case.image, truth=case.mask, boxes=box, title=f"original: {width} x {height}")

    resized = transform.image_to_model(case.image)
    padding = (0, side - resized.shape[0]), (0, side - resized.shape[1]), (0, 0)
    padded = np.pad(resized, padding, constant_values=0xDD)
    inside = transform.mask_to_target(case.mask, side).numpy() > 0.5
    show_case(model, padded, truth=inside, boxes=transform.to_model(box), title=f"model: {side} x {side}")
    _hatch(model, transform, side)

    side = transform.mask_size
    target = transform.mask_to_target(case.mask).numpy() > 0.5
    show_masks(mask, {"reference": (target, COLORS["truth"])}, transform, legend=False)
    draw_boxes(mask, transform.to_grid(box, side))
    mask.set_title(f"mask: {side} x {side}", fontsize=10)
    mask.set(xticks=range(0, side, 50), yticks=range(0, side, 50))
    for ax in axes:
        ax.set_axis_on()
        ax.tick_params(labelsize=8)
        ax.set(xlabel="x, pixels", ylabel="y, pixels")
    return figure


def show_masks(
    ax: Axes, masks: Mapping[str, tuple[np.ndarray, str]], transform: ImageTransform | None = None, legend: bool = True
) -> Axes:
    """The axes with masks of one size, name -> (H, W) bool and colour, tinted and outlined on top of each other.

    The padding of a transform that is given is hatched.
    """
    height, width = next(iter(masks.values()))[0].shape
    ax.imshow(np.ones((height, width, 3)))
    for mask, color in masks.values():
        draw_mask(ax, mask, color, tint=0.45)
    handles = [Patch(facecolor=to_rgba(color, 0.45), edgecolor=color, label=name) for name, (_, color) in masks.items()]
    if transform is not None:
        handles.append(_hatch(ax, transform, transform.mask_size))
    if legend:
        ax.legend(handles=handles, fontsize=8, loc="lower center", framealpha=0.9)
    ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])
    return ax


def _hatch(ax: Axes, transform: ImageTransform, side: int) -> Patch:
    """Hatches the padding, right of the image and below it, on a grid of side x side; the legend's handle."""
    height, width = transform.covered_hw(side)
    style: dict[str, Any] = {"facecolor": "#DDDDDD", "edgecolor": "#888888", "hatch": "//", "linewidth": 0}
    ax.add_patch(Rectangle((width - 0.5, -0.5), side - width, side, **style))
    ax.add_patch(Rectangle((-0.5, height - 0.5), width, side - height, **style))
    return Patch(label="padding", **style)


def describe(dataset: Dataset, *, show_progress: bool = True) -> pd.DataFrame:
    """One row a case, each decoded once: its split, and what `describe_case` says of it."""
    places = [(split, cases, number) for split, cases in dataset.splits.items() for number in range(len(cases))]
    bar = tqdm(places, "describe", unit="case", disable=not show_progress)
    return pd.DataFrame(
        {"case": (case := cases[number]).name, "split": split} | describe_case(case) for split, cases, number in bar
    )


def describe_case(case: Case) -> dict[str, float]:
    """Size, place and brightness of one case's lesion.

    Returns:
        `height`, `width` in pixels; `lesion_share` of the image in [0, 1]; `lesions`, the connected components that
        `mask_to_boxes` counts; `centre_x`, `centre_y`, the lesion's centre of mass as shares of width and height;
        `lesion_gray` and `rim_gray`, mean gray value (0 to 255) of the lesion and of a rim of 20 pixels (at a long
        side of 1024) round it, the recorder's black left out; NaN where no rim is left. `PromptError`: an empty mask.
    """
    height, width = case.size_hw
    y, x = ndimage.center_of_mass(case.mask)
    gray = case.image.mean(axis=2)
    near = ndimage.distance_transform_edt(~case.mask) <= _RIM_1024 * max(case.size_hw) / 1024
    rim = near & ~case.mask & (case.image.max(axis=2) > _BLACK)
    return {
        "height": height,
        "width": width,
        "lesion_share": float(case.mask.mean()),
        "lesions": len(mask_to_boxes(case.mask, "components")),
        "centre_x": float(x + 0.5) / width,
        "centre_y": float(y + 0.5) / height,
        "lesion_gray": float(gray[case.mask].mean()),
        "rim_gray": float(gray[rim].mean()) if rim.any() else float("nan"),
    }
