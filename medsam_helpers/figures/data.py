"""Pictures of a data set: its cases, the coordinate spaces they travel through, two masks on one grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from medsam_helpers.data.case import Case
from medsam_helpers.figures.cases import COLORS, show_case
from medsam_helpers.geometry import ImageTransform

# Of the palette that `plotting.COLORS` is from: what went the wrong way; data at hand, and data that was recorded.
STRETCHED, AT_HAND, RECORDED = "#D55E00", "#666666", "#CC79A7"
_PADDING = "#DDDDDD"


def case_grid(rows: Mapping[str, Sequence[Case]]) -> Figure:
    """A row of cases a name, each with the outline of its reference and its size, width x height.

    Args:
        rows: what the row shows -> its cases.
    """
    columns = max(map(len, rows.values()))
    figure = Figure(figsize=(1.75 * columns, 1.85 * len(rows)), layout="constrained")
    parts = np.atleast_1d(figure.subfigures(len(rows), 1))
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
    """One case in its original, its model and its mask space, with the same lesion and the same box in each.

    Args:
        case: image and mask.
        box: (4,) xyxy, original space.
        transform: of the case's size.
    """
    figure = Figure(figsize=(8, 3), layout="constrained")
    original, model, mask = figure.subplots(1, 3)
    height, width = case.size_hw
    show_case(original, case.image, truth=case.mask, boxes=box, title=f"original: {width} x {height}")

    new_height, new_width = transform.resized_hw
    padded = np.full((transform.model_size, transform.model_size, 3), 0xDD, np.uint8)
    padded[:new_height, :new_width] = transform.image_to_model(case.image)
    target = transform.mask_to_target(case.mask).numpy() > 0.5
    show_case(
        model, padded, boxes=transform.to_model(box), title=f"model: {transform.model_size} x {transform.model_size}"
    )
    _hatch(model, new_width, new_height, transform.model_size)

    show_masks(mask, {"reference": (target, COLORS["truth"])}, transform, legend=False)
    boxes = transform.to_model(box) * transform.mask_size / transform.model_size
    style = {"fill": False, "edgecolor": COLORS["prompt"], "linewidth": 1.6, "linestyle": "--"}
    x0, y0, x1, y1 = boxes
    mask.add_patch(Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, **style))
    mask.set_title(f"mask: {transform.mask_size} x {transform.mask_size}", fontsize=10)
    mask.set(xticks=range(0, transform.mask_size, 50), yticks=range(0, transform.mask_size, 50))
    for ax in (original, model, mask):
        ax.set_axis_on()
        ax.tick_params(labelsize=8)
    return figure


def show_masks(
    ax: Axes, masks: Mapping[str, tuple[np.ndarray, str]], transform: ImageTransform | None = None, legend: bool = True
) -> Axes:
    """Masks of one size on top of each other, each tinted and outlined in its colour.

    Args:
        ax: drawn into.
        masks: name -> (H, W) bool and colour.
        transform: if given, its padding is hatched.
        legend: name the masks.
    """
    height, width = next(iter(masks.values()))[0].shape
    ax.imshow(np.ones((height, width, 3)))
    for mask, color in masks.values():
        tint = np.zeros((height, width, 4))
        tint[mask] = to_rgba(color, 0.45)
        ax.imshow(tint)
        if mask.any():
            # A rim of background closes the outline of what touches the edge.
            x, y, rimmed = np.arange(-1, width + 1), np.arange(-1, height + 1), np.pad(mask, 1).astype(float)
            ax.contour(x, y, rimmed, levels=[0.5], colors=color, linewidths=1.8)
    handles = [Patch(facecolor=to_rgba(color, 0.45), edgecolor=color, label=name) for name, (_, color) in masks.items()]
    if transform is not None:
        new_height, new_width = (side * transform.mask_size / transform.model_size for side in transform.resized_hw)
        handles.append(_hatch(ax, new_width, new_height, transform.mask_size))
    if legend:
        ax.legend(handles=handles, fontsize=8, loc="lower center", framealpha=0.9)
    ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])
    return ax


def _hatch(ax: Axes, width: float, height: float, side: int) -> Patch:
    """Hatches what lies beyond the image, right and below."""
    style = {"facecolor": _PADDING, "edgecolor": "#888888", "hatch": "//", "linewidth": 0}
    ax.add_patch(Rectangle((width - 0.5, -0.5), side - width, side, **style))
    ax.add_patch(Rectangle((-0.5, height - 0.5), width, side - height, **style))
    return Patch(**style, label="padding")
