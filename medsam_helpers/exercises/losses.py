"""Checkers of notebook 01, segmentation losses."""

import torch

from medsam_helpers.exercises.checking import Answer, Hints, checker, near, number_hint
from medsam_helpers.training.losses import dice_loss, focal_loss

_GENERATOR = torch.Generator().manual_seed(1)
# Three images, the last without a lesion.
_LOGITS = 3 * torch.randn(3, 1, 8, 8, generator=_GENERATOR)
_TARGET = (torch.rand(3, 1, 8, 8, generator=_GENERATOR) > 0.7) * torch.tensor([1.0, 1.0, 0.0]).view(3, 1, 1, 1)


@checker("01.2")
def _tversky(answer: Answer) -> Hints:
    if not near(answer(_LOGITS, _TARGET, 0.5, 0.5), dice_loss(_LOGITS, _TARGET).item(), 1e-3):
        yield "with both weights 0.5 it must equal dice_loss: sum within each image, then take the mean over the batch"
    p, t = _LOGITS.sigmoid(), _TARGET
    hit, false_alarm, miss = (part.sum((1, 2, 3)) for part in (p * t, p * (1 - t), (1 - p) * t))
    expected = 1 - ((hit + 1e-5) / (hit + 0.3 * false_alarm + 0.7 * miss + 1e-5)).mean()
    if not near(answer(_LOGITS, _TARGET, 0.3, 0.7), expected.item(), 1e-3):
        yield "the third argument weighs false alarms, p (1 - t), and the fourth misses, (1 - p) t"


@checker("01.1")
def _repaired_focal(answer: Answer) -> Hints:
    right = focal_loss(_LOGITS, _TARGET, alpha=None, gamma=2.0).item()
    hint = "the factor (1 - p_t)^2 belongs to each pixel, so it must be applied before the mean is taken"
    yield from number_hint(answer(_LOGITS, _TARGET), right, 1e-4, [], hint)
