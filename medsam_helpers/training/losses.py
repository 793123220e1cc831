"""Losses of one mask against one reference: pure functions of logits and target, each a scalar to be minimised.

All take logits (B, 1, H, W) float, unbounded, and a target of that shape with values in {0, 1}, and raise `ShapeError`
or `DataError` for others. All compute in float32: a sum over 256 x 256 pixels passes what half precision holds.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F

from medsam_helpers.errors import DataError, ShapeError

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _checked(logits: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both as float32, after the checks that all losses promise; on a GPU the values are not looked at."""
    if logits.shape != target.shape or logits.ndim != 4 or logits.shape[1] != 1:
        shapes = f"{tuple(logits.shape)} and {tuple(target.shape)}"
        raise ShapeError(f"logits and target must both be (B, 1, H, W), are {shapes}")
    logits, target = logits.float(), target.float()
    if not target.is_cuda and (target * (target - 1)).any():  # there each look would stop the queue of a GPU
        values = f"its values run from {target.min():g} to {target.max():g}"
        raise DataError(f"target must hold 0 and 1 only, {values}; binarise the mask first, such as mask > 127")
    return logits, target


def bce_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy, a scalar >= 0: the mean over all pixels; 0 is certain and right everywhere.

    Args:
        logits: (B, 1, H, W) float, unbounded.
        target: (B, 1, H, W), values in {0, 1}.

    >>> bce_loss(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2))  # ln 2: knows nothing
    tensor(0.6931)
    """
    logits, target = _checked(logits, target)
    return F.binary_cross_entropy_with_logits(logits, target)


def focal_loss(
    logits: torch.Tensor, target: torch.Tensor, alpha: float | None = 0.25, gamma: float = 2.0
) -> torch.Tensor:
    """Focal loss, a scalar >= 0: cross-entropy in which a pixel weighs less the better it is known, `(1 - p_t)^gamma`.

    Args:
        logits, target: (B, 1, H, W), as for `bce_loss`.
        alpha: weight of the foreground, the background gets `1 - alpha`; None weighs both 1.
        gamma: 0 is plain cross-entropy; larger values leave more to the pixels that are still wrong.
    Source: Lin et al., ICCV 2017, eq. 5; arXiv:1708.02002.
    """
    logits, target = _checked(logits, target)
    margin = logits * (2 * target - 1)  # positive where right, so p_t = sigmoid(margin)
    # (1 - p_t)^gamma by its logarithm: the power itself has no finite gradient at p_t = 1 for gamma < 1.
    loss = -F.logsigmoid(margin) * torch.exp(gamma * F.logsigmoid(-margin))
    if alpha is not None:
        loss = loss * (alpha * target + (1 - alpha) * (1 - target))
    return loss.mean()


def dice_loss(logits: torch.Tensor, target: torch.Tensor, squared: bool = False, smooth: float = 1e-5) -> torch.Tensor:
    """One minus the soft Dice overlap, in [0, 1], by image, then the mean over the batch; 0 is perfect. Both empty: 0.

    Args:
        logits, target: (B, 1, H, W), as for `bce_loss`.
        squared: square the probabilities in the denominator (Milletari's form). It then is not the Dice that is
            reported, and its gradient fades as a probability nears its target.
        smooth: added to both sides of the fraction, so that two empty masks have a loss.
    Source: Milletari et al., 3DV 2016; arXiv:1606.04797.
    """
    logits, target = _checked(logits, target)
    probability = logits.sigmoid()
    overlap = (probability * target).sum(dim=(1, 2, 3))
    mass = (probability**2 if squared else probability).sum(dim=(1, 2, 3)) + target.sum(dim=(1, 2, 3))
    return (1 - (2 * overlap + smooth) / (mass + smooth)).mean()


def dice_ce_loss(logits: torch.Tensor, target: torch.Tensor, squared: bool = False) -> torch.Tensor:
    """Dice plus cross-entropy, a scalar >= 0; `squared` as MedSAM's authors and the public fine-tuning recipe train.

    The same as MONAI's `DiceCELoss(sigmoid=True)` (a test compares), without the seconds that importing MONAI takes.

    Source: Ma et al., Nature Communications 2024; doi:10.1038/s41467-024-44824-z.
    """
    return dice_loss(logits, target, squared) + bce_loss(logits, target)


def sam_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Focal and Dice loss, 20 : 1, a scalar >= 0: SAM's masks were trained with it (and its IoU head with another).

    Source: Kirillov et al., ICCV 2023, appendix A; arXiv:2304.02643.
    """
    return 20 * focal_loss(logits, target) + dice_loss(logits, target)


LOSSES: dict[str, Loss] = {
    "bce": bce_loss,
    "dice": dice_loss,
    "focal": focal_loss,
    "dice_bce": partial(dice_ce_loss, squared=True),  # as MedSAM's authors call it
    "dice_ce": dice_ce_loss,
    "dice_ce_squared": partial(dice_ce_loss, squared=True),  # as MONAI does
    "sam": sam_loss,
}


def get_loss(loss: str | Loss) -> Loss:
    """The loss of that name, one of a recipe's `LossName`, or the reader's own as it is."""
    return loss if callable(loss) else LOSSES[loss]
