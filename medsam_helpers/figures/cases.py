"""Pictures. Each function returns its Axes or Figure and shows nothing."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.patheffects as effects
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from medsam_helpers.data.case import Case
from medsam_helpers.evaluation.metrics import dice

# The palette of Okabe and Ito, which colour-blind readers tell apart; one colour for one thing all through.
COLORS = {"truth": "#009E73", "prediction": "#F0E442", "prompt": "#56B4E9", "zero-shot": "#E69F00", "tuned": "#0072B2"}
_HALO = [effects.withStroke(linewidth=3, foreground="black")]


def show_case(
    ax: Axes,
    image: np.ndarray,
    *,
    truth: np.ndarray | None = None,
    prediction: np.ndarray | None = None,
    boxes: np.ndarray | None = None,
    title: str = "",
) -> Axes:
    """An image with outlines: truth, prediction (tinted too) and prompt boxes.

    Args:
        ax: drawn into.
        image: (H, W, 3) uint8.
        truth: (H, W) bool.
        prediction: (H, W) bool.
        boxes: (N, 4) xyxy, original space.
        title: over the picture.
    """
    ax.imshow(image)
    if prediction is not None and prediction.any():
        tint = np.zeros((*prediction.shape, 4))
        tint[prediction] = (*_rgb("prediction"), 0.25)
        ax.imshow(tint)
    height, width = image.shape[:2]
    for mask, role in ((truth, "truth"), (prediction, "prediction")):
        if mask is not None and mask.any():
            # A rim of background closes the outline of what touches the image's edge.
            x, y, rimmed = np.arange(-1, width + 1), np.arange(-1, height + 1), np.pad(mask, 1).astype(float)
            lines = ax.contour(x, y, rimmed, levels=[0.5], colors=COLORS[role], linewidths=1.6)
            lines.set_path_effects(_HALO)
    for x0, y0, x1, y1 in np.reshape(boxes if boxes is not None else [], (-1, 4)):
        # Pixel centres lie on whole numbers in a picture, box sides on pixel edges.
        style = {"fill": False, "edgecolor": COLORS["prompt"], "linewidth": 1.6, "linestyle": "--"}
        ax.add_patch(Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, path_effects=_HALO, **style))
    # Pixels, whole ones, whatever else was drawn.
    ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    ax.set_title(title, fontsize=10)
    ax.set_axis_off()
    return ax


def _rgb(role: str) -> tuple[float, ...]:
    return tuple(int(COLORS[role][i : i + 2], 16) / 255 for i in (1, 3, 5))


def before_after(
    cases: Sequence[Case],
    boxes: Sequence[np.ndarray],
    zero_shot: Sequence[np.ndarray],
    tuned: Sequence[np.ndarray],
    note: str = "",
) -> Figure:
    """A row a case: truth with its prompt, zero-shot mask, fine-tuned mask, each with its Dice.

    Args:
        cases: K of them.
        boxes: K arrays (N, 4), the prompts.
        zero_shot: K masks (H, W) bool.
        tuned: likewise.
        note: in the figure's title; phantoms are to be called phantoms.
    """
    figure = Figure(figsize=(10, 3.1 * len(cases)), layout="constrained")
    rows = figure.subplots(len(cases), 3, squeeze=False)
    for axes, case, box, before, after in zip(rows, cases, boxes, zero_shot, tuned, strict=True):
        show_case(axes[0], case.image, truth=case.mask, boxes=box, title=case.name)
        for ax, name, mask in ((axes[1], "zero-shot", before), (axes[2], "fine-tuned", after)):
            title = f"{name}: Dice {dice(mask, case.mask):.2f}"
            show_case(ax, case.image, truth=case.mask, prediction=mask, boxes=box, title=title)
    legend = [("truth", "reference"), ("prediction", "model"), ("prompt", "box prompt")]
    handles = [rows[0, 0].plot([], [], color=COLORS[role], label=label)[0] for role, label in legend]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(note, fontsize=11)
    return figure


def training_curves(history: pd.DataFrame, axes: Sequence[Axes]) -> Sequence[Axes]:
    """Training loss and dev Dice by epoch, with the zero-shot model (epoch 0) as a line.

    Args:
        history: of `FitResult`.
        axes: two of them.
    """
    trained = history[history["epoch"] > 0]
    axes[0].plot(trained["epoch"], trained["loss"], marker="o", color=COLORS["tuned"])
    axes[0].set(xlabel="epoch", ylabel="training loss")
    axes[1].axhline(history["dev_dice"].iloc[0], color=COLORS["zero-shot"], linestyle="--", label="zero-shot")
    axes[1].plot(trained["epoch"], trained["dev_dice"], marker="o", color=COLORS["tuned"], label="fine-tuned")
    axes[1].set(xlabel="epoch", ylabel="dev Dice")
    axes[1].legend(frameon=False)
    return axes
