"""Checkers of notebook 04, fine-tune the decoder."""

import math
from itertools import product

import numpy as np
import torch

from medsam_helpers.exercises.checking import Answer, Hints, checker, near


@checker("04.2")
def _accumulated(answer: Answer) -> Hints:
    generator = torch.Generator().manual_seed(0)
    passes: list[int] = []

    def loss_of(weight: torch.Tensor, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        passes.append(len(batch[0]))
        return (batch[0] @ weight - batch[1]).square().mean()

    for sizes in ([4, 4], [3, 3, 3], [4, 4, 2], [5, 1]):
        x = torch.randn(sum(sizes), 6, generator=generator)
        y = torch.randn(sum(sizes), generator=generator)
        weight = torch.randn(6, generator=generator, requires_grad=True)
        (whole,) = torch.autograd.grad(loss_of(weight, (x, y)), weight)
        passes.clear()
        batches = list(zip(x.split(sizes), y.split(sizes), strict=True))
        found = torch.as_tensor(answer(weight, batches, loss_of)).detach()
        if found.shape != whole.shape:
            yield f"give back the gradient: shape {tuple(whole.shape)}, got {tuple(found.shape)}"
        if max(passes, default=0) > max(sizes):
            yield "one batch at a time: a larger one would not fit into memory, which is why we accumulate"
        if torch.allclose(found, whole, rtol=1e-4, atol=1e-5):
            continue
        ratio = (found @ whole / (whole @ whole)).item()
        if len(set(sizes)) > 1:
            yield f"batches of {', '.join(map(str, sizes))}: weigh each by its share of the images"
        if math.isclose(ratio, len(sizes), rel_tol=0.02):
            yield f"{len(sizes)} times too large: each loss is a mean already, so their sum must be divided"
        yield "add up the gradients of the batches so that every image weighs the same"


@checker("04.3")
def _loss_of_ones_own(answer: Answer) -> Hints:
    generator = torch.Generator().manual_seed(3)
    target = (torch.rand(3, 1, 8, 8, generator=generator) > 0.7).float()
    logits = torch.randn(3, 1, 8, 8, generator=generator).requires_grad_()
    value = torch.as_tensor(answer(logits, target))
    if value.shape != ():
        yield f"give back one number, the mean over the batch: yours has the shape {tuple(value.shape)}"
    if not value.requires_grad:
        yield "no gradient reaches the logits: no threshold, no `.item()`, no `.detach()`"
    signs = 2 * target - 1
    perfect, surer, wrong = (float(answer(sure * signs, target)) for sure in (10, 100, -10))
    if not math.isfinite(float(answer(torch.full_like(target, -200), 0 * target))):
        yield "a target without a lesion gives NaN: add a small number above and below the line"
    if min(value.item(), perfect, wrong) < -1e-3 or abs(surer - perfect) > 0.01:
        yield "it falls below zero, or changes when a perfect answer gets surer: take the sigmoid of the logits first"
    if perfect > 0.1 * wrong:
        yield f"a perfect answer costs {perfect:.2f}, a wrong one {wrong:.2f}: `fit` makes the loss small"
    alone = [float(answer(logits.detach()[i : i + 1], target[i : i + 1])) for i in range(3)]
    if not near(value.detach(), sum(alone) / 3, 1e-3):
        if near(value.detach(), sum(alone), 1e-3):
            yield "summed over the batch: take the mean"
        yield "sum within each image, then take the mean over images"


@checker("04.4")
def _early_stopping(answer: Answer) -> Hints:
    curves = [[0.9, 0.8, 0.7, 0.6], [0.8, 0.9, 0.85, 0.95, 0.9, 0.9, 0.97], [0.5, 0.6, 0.7], [0.8, 0.9, 0.9, 0.9]]
    curves += np.random.default_rng(0).uniform(0.85, 0.95, (20, 12)).round(2).tolist()
    for curve, patience in product(curves, (1, 2, 3)):
        try:
            stopped, kept = (int(epoch) for epoch in answer(list(curve), patience))
        except TypeError:
            yield "give back two epochs: the last that runs, and the one whose weights are kept"
        best = 0
        for epoch, score in enumerate(curve):
            best = epoch if score > curve[best] else best
            if epoch - best >= patience:
                break
        situation = f"{', '.join(f'{score:g}' for score in curve[:7])}, ... with patience {patience}"
        if kept > stopped:
            yield f"an epoch that never ran was kept, of {situation}: training had stopped"
        if kept != best:
            yield f"{situation} keeps epoch {best}: epoch 0, the zero-shot model, counts; of equals the earlier stays"
        if stopped != epoch:
            yield f"of {situation} epoch {epoch} is the last: count epochs since the best so far, or reach the end"
