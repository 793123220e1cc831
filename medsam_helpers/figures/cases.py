"""Pictures of cases: masks and boxes drawn over the image, before and after, and the curves of a training."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.patheffects as effects
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from medsam_helpers.evaluation.metrics import dice

if TYPE_CHECKING:
    from medsam_helpers.data.case import Case

# The palette of Okabe and Ito, which colour-blind readers tell apart; one colour for one thing all through.
COLORS = {"truth": "#009E73", "prediction": "#F0E442", "prompt": "#56B4E9", "zero-shot": "#E69F00", "tuned": "#0072B2"}
HALO: list[effects.AbstractPathEffect] = [effects.withStroke(linewidth=3, foreground="black")]
"""A black rim, which makes lines readable over any image."""


def show_case(
    ax: Axes,
    image: np.ndarray,
    *,
    truth: np.ndarray | None = None,
    prediction: np.ndarray | None = None,
    boxes: np.ndarray | None = None,
    title: str = "",
) -> Axes:
    """The axes with an image (H, W, 3) uint8 and outlines on it.

    Truth and prediction (tinted too) are (H, W) bool, boxes (N, 4) xyxy, original space.
    """
    ax.imshow(image)
    for mask, role, tint in ((truth, "truth", 0), (prediction, "prediction", 0.25)):
        if mask is not None:
            draw_mask(ax, mask, COLORS[role], tint=tint, path_effects=HALO)
    if boxes is not None:
        draw_boxes(ax, boxes, path_effects=HALO)
    height, width = image.shape[:2]
    ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    ax.set_title(title, fontsize=10, parse_math=False)  # a name may hold dollar signs
    ax.set_axis_off()
    return ax


def draw_mask(ax: Axes, mask: np.ndarray, color: str, *, tint: float = 0, **style: Any) -> None:
    """Outlines a mask (H, W) bool and, with `tint` (an opacity) above 0, colours its inside; `style` of the line."""
    if not mask.any():
        return
    if tint:
        ax.imshow(np.where(mask[..., None], to_rgba(color, tint), 0))
    # A rim of background closes the outline of what touches the image's edge.
    x, y = np.arange(-1, mask.shape[1] + 1), np.arange(-1, mask.shape[0] + 1)
    ax.contour(x, y, np.pad(mask, 1).astype(float), levels=[0.5], colors=color, linewidths=1.6).set(**style)


def draw_boxes(ax: Axes, boxes: np.ndarray, **style: Any) -> None:
    """Draws prompt boxes (N, 4) xyxy, in the pixels of the picture."""
    for x0, y0, x1, y1 in np.reshape(boxes, (-1, 4)):
        # Pixel centres lie on whole numbers in a picture, box sides on pixel edges.
        box = Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, linewidth=1.6, linestyle="--")
        box.set(edgecolor=COLORS["prompt"], zorder=2, **style)  # not under an outline
        ax.add_patch(box)


def before_after(
    cases: Sequence["Case"],
    boxes: Sequence[np.ndarray | None],
    zero_shot: Sequence[np.ndarray],
    tuned: Sequence[np.ndarray],
    note: str = "",
) -> Figure:
    """A figure with a row a case: truth with its prompt, zero-shot mask, fine-tuned mask, each with its Dice.

    Of each case `boxes` has the prompts (N, 4), or None, `zero_shot` and `tuned` a mask (H, W) bool.
    """
    figure = Figure(figsize=(10, 3.1 * len(cases)), layout="constrained")
    rows = figure.subplots(len(cases), 3, squeeze=False)
    for axes, case, box, before, after in zip(rows, cases, boxes, zero_shot, tuned, strict=True):
        show_case(axes[0], case.image, truth=case.mask, boxes=box, title=case.name)
        for ax, name, mask in ((axes[1], "zero-shot", before), (axes[2], "fine-tuned", after)):
            title = f"{name}: Dice {dice(mask, case.mask):.2f}"
            show_case(ax, case.image, truth=case.mask, prediction=mask, boxes=box, title=title)
    legend = {"truth": "reference", "prediction": "model", "prompt": "box prompt"}
    if all(box is None for box in boxes):
        del legend["prompt"]
    draw, dash = rows[0, 0].plot, {"prompt": "--"}
    handles = [draw([], [], dash.get(role, "-"), color=COLORS[role], label=label)[0] for role, label in legend.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(note, fontsize=11)
    return figure


def training_curves(history: pd.DataFrame, axes: Sequence[Axes]) -> Sequence[Axes]:
    """The two axes with training loss and dev Dice by epoch of a `FitResult`; the zero-shot model is a dashed line."""
    trained = history[history["epoch"] > 0]
    axes[1].axhline(history["dev_dice"].iloc[0], color=COLORS["zero-shot"], linestyle="--", label="zero-shot")
    for ax, column, label in zip(axes, ("loss", "dev_dice"), ("training loss", "dev Dice"), strict=True):
        ax.plot(trained["epoch"], trained[column], marker="o", color=COLORS["tuned"], label="fine-tuned")
        ax.set(xlabel="epoch", ylabel=label)
    axes[1].legend(frameon=False)
    return axes
