"""Checkers of notebook 01, segmentation losses."""

from typing import Any

import torch

from medsam_helpers.exercises.checking import Answer, checker, near, number_hint
from medsam_helpers.training.losses import dice_loss, focal_loss


def _random_masks() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and targets of three images, the last without a lesion."""
    generator = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(3, 1, 8, 8, generator=generator)
    target = (torch.rand(3, 1, 8, 8, generator=generator) > 0.7).float()
    target[2] = 0
    return logits, target


@checker("01.1")
def _balancing_alpha(answer: Any) -> str | None:
    known = {0.02: "that is the weight of the background: alpha is the lesion's"}
    otherwise = "with p = 0.5 everywhere, alpha times the lesion's share must equal (1 - alpha) times the background's"
    return number_hint(answer, 0.98, 1e-3, known, otherwise)


@checker("01.2")
def _tversky(answer: Answer) -> str | None:
    logits, target = _random_masks()
    if not near(answer(logits, target, 0.5, 0.5), dice_loss(logits, target).item(), 1e-3):
        return "with both weights 0.5 it must equal dice_loss: sum within each image, then take the mean over the batch"
    p = logits.sigmoid()
    hit, false_alarm, miss = (part.sum((1, 2, 3)) for part in (p * target, p * (1 - target), (1 - p) * target))
    expected = 1 - ((hit + 1e-5) / (hit + 0.3 * false_alarm + 0.7 * miss + 1e-5)).mean()
    if not near(answer(logits, target, 0.3, 0.7), expected.item(), 1e-3):
        return "the third argument weighs false alarms, p (1 - t), and the fourth misses, (1 - p) t"
    return None


@checker("01.3")
def _repaired_focal(answer: Answer) -> str | None:
    logits, target = _random_masks()
    right = focal_loss(logits, target, alpha=None, gamma=2.0).item()
    hint = "the factor (1 - p_t)^2 belongs to each pixel, so it must be applied before the mean is taken"
    return number_hint(answer(logits, target), right, 1e-4, {}, hint)
