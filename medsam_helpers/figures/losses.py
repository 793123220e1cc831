"""Pictures of what losses ask for, pixel by pixel: a wrong guess and the gradient of its loss."""

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy import ndimage

from medsam_helpers.errors import DataError
from medsam_helpers.figures.cases import COLORS, draw_mask, show_case
from medsam_helpers.training.losses import Loss, bce_loss, dice_ce_loss, dice_loss, focal_loss, sam_loss

_LOSSES: tuple[tuple[str, Loss, str, str], ...] = (
    ("CE", bce_loss, "black", "-"),
    ("focal", focal_loss, "#888888", "--"),
    ("Dice", dice_loss, "#D55E00", "-"),
    ("Dice + CE", dice_ce_loss, "#CC79A7", "-"),
    ("20 focal + Dice", sam_loss, "#882255", "-."),
)
FIVE_LOSSES = {name: loss for name, loss, *_ in _LOSSES}
LOSS_STYLES = {name: {"color": color, "linestyle": line} for name, _, color, line in _LOSSES}
"""Colours that `cases.COLORS` leaves free; they differ in grey and to the colour-blind too."""


def wrong_guess(mask: np.ndarray) -> torch.Tensor:
    """Logits (1, 1, H, W), -6 to 6, of a model that is certain and wrong: the lesion, moved left by 0.3 of its width.

    The mask is (H, W) bool; a `DataError` where it is empty.
    """
    if not mask.any():
        raise DataError("the mask is empty: there is no lesion to guess wrong")
    width = np.ptp(np.flatnonzero(mask.any(axis=0))) + 1
    moved = ndimage.shift(mask.astype(np.float32), (0, -round(0.3 * width)), order=0)
    soft = ndimage.gaussian_filter(moved, 0.05 * width)
    return torch.from_numpy(6 * (2 * soft - 1))[None, None]


def logit_gradient(loss: Loss, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Derivative of the loss by each logit, (B, 1, H, W) as logits and target; descent moves a logit the other way.

    >>> logit_gradient(bce_loss, torch.zeros(1, 1, 1, 2), torch.tensor([[[[1.0, 0.0]]]])).flatten()  # (p - t) / 2
    tensor([-0.2500,  0.2500])
    """
    free = logits.detach().clone().requires_grad_()
    return torch.autograd.grad(loss(free, target), free)[0]


def gradient_maps(image: np.ndarray, mask: np.ndarray, logits: torch.Tensor, note: str = "") -> Figure:
    """A figure of the guess, logits (1, 1, H, W), then a map of each of `FIVE_LOSSES`, scaled to its largest step.

    Purple is where descent raises the logit, orange where it lowers it. The image is (H, W, 3) uint8, the true mask
    (H, W) bool.
    """
    figure = Figure(figsize=(9, 5.6), layout="constrained")
    axes = figure.subplots(2, 3).ravel()
    guess = logits[0, 0].numpy() > 0
    show_case(axes[0], image, truth=mask, prediction=guess, title="guess: yellow, truth: green")
    target = torch.tensor(mask, dtype=torch.float32)[None, None]
    for ax, (name, loss) in zip(axes[1:], FIVE_LOSSES.items(), strict=True):
        step = -logit_gradient(loss, logits, target)[0, 0].numpy()
        picture = ax.imshow(step / np.abs(step).max(), cmap="PuOr", vmin=-1, vmax=1)
        draw_mask(ax, mask, COLORS["truth"], linewidth=1.2)
        ax.set_title(name, fontsize=10)
    for ax in axes:
        ax.set_axis_off()
    bar = figure.colorbar(picture, ax=axes, shrink=0.6, ticks=[-1, 0, 1])
    bar.ax.set_yticklabels(["less lesion", "as it is", "more lesion"])
    figure.suptitle(note, fontsize=11)
    return figure
