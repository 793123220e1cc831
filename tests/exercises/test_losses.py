"""Checkers of notebook 01: a right answer is correct, each kind of wrong one gets its hint."""

import numpy as np
import torch
from verdicts import says

from medsam_helpers.training.losses import dice_loss, focal_loss


def tversky(logits, target, a, b, dims=(1, 2, 3)):
    p = logits.sigmoid()
    hit = (p * target).sum(dims)
    mass = hit + a * (p * (1 - target)).sum(dims) + b * ((1 - p) * target).sum(dims)
    return 1 - (hit / mass).mean()


test_what_is_said_of_an_answer = says(
    ("01.1", np.float32(0.98), "correct"),
    ("01.1", 0.02, "weight of the background"),
    ("01.1", torch.tensor([0.98, 0.98]), "must equal"),
    ("01.2", tversky, "correct"),
    ("01.2", lambda logits, target, a, b: dice_loss(logits, target), "third argument"),
    ("01.2", lambda *given: tversky(*given, dims=(0, 1, 2, 3)), "within each image"),
    ("01.3", lambda logits, target: focal_loss(logits, target, alpha=None), "correct"),
    ("01.3", focal_loss, "before the mean"),  # its default alpha is not 1
)
