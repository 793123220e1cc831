"""Checkers of notebook 04, fine-tune the decoder."""

import math
from itertools import product

import numpy as np
import torch

from medsam_helpers.exercises.checking import Answer, Hints, checker, number_hint


@checker("04.1")
def _optimiser_steps(answer: Answer) -> Hints:
    known = {
        510: "those are forward passes: with accumulation 2, two of them make one step",
        255: "an epoch ends with a step of its own: round up in each epoch, not once at the end",
        250: "the last, smaller batch of an epoch counts too: round up",
        2030: "those are images: four of them make a batch, two batches a step",
    }
    otherwise = "batches an epoch, then steps an epoch (each rounded up), then times the epochs"
    yield from number_hint(answer, 260, 0.5, known, otherwise)


@checker("04.2")
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


@checker("04.3")
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
