"""Checkers of notebook 09, beyond the decoder."""

import numpy as np
import torch
from torch import nn
from transformers import SamVisionConfig

from medsam_helpers.errors import ConfigError
from medsam_helpers.exercises.checking import Answer, Hints, checker
from medsam_helpers.sam.tiny_vit import TinyViT
from medsam_helpers.sam.unfrozen import lora_targets


@checker("09.2")
def _layer_with_lora(answer: Answer) -> Hints:
    generator = torch.Generator().manual_seed(0)
    layer, rank, alpha = nn.Linear(6, 4), 2, 10
    try:
        a, b, forward = answer(layer, rank, alpha)
    except (TypeError, ValueError):
        yield "give back three things: A, B, and the function of x"
    if any(weight.requires_grad for weight in layer.parameters()):
        yield "the layer itself would train too: freeze its weight and its bias"
    if (tuple(a.shape), tuple(b.shape)) == ((4, 2), (2, 6)):
        yield "A and B are swapped: A comes first and is (rank, in), B is (out, rank)"
    if (tuple(a.shape), tuple(b.shape)) != ((2, 6), (4, 2)):
        yield f"A is (rank, in) and B is (out, rank): here (2, 6) and (4, 2), got {tuple(a.shape)} and {tuple(b.shape)}"
    if not (a.requires_grad and b.requires_grad):
        yield "A and B shall train: make each an `nn.Parameter`"
    if not (a.any() or b.any()):
        yield "both are zero: the gradient of each is multiplied by the other, so neither ever moves"
    if a.any() and b.any():
        yield "both are random: the layer would begin with another answer; let B be zero"
    if b.any():
        yield "A is zero and B is not: it would train, but by convention B is the one that begins at zero"
    x = torch.randn(3, 6, generator=generator)
    with torch.no_grad():
        b.copy_(torch.randn(4, 2, generator=generator))
        added, product = forward(x) - layer(x), x @ a.T @ b.T
        if torch.allclose(added, product, atol=1e-4):
            yield "the scale is missing: multiply the product by alpha / rank"
        if torch.allclose(added, alpha * product, atol=1e-4):
            yield "multiplied by alpha alone: alpha / rank is the scale"
        if torch.allclose(added + layer(x), alpha / rank * product, atol=1e-4):
            yield "the layer's own answer is missing: LoRA is added to it"
        if not torch.allclose(added, alpha / rank * product, atol=1e-4):
            yield "x goes through A, then through B, times alpha / rank, and is added to layer(x)"


@checker("09.3")
def _within_the_budget(answer: Answer) -> Hints:
    budget, least = 100_000, 4
    try:
        rank, names = int(answer["lora_rank"]), tuple(answer["lora_targets"])
    except (TypeError, KeyError):
        yield 'give back {"lora_rank": a number, "lora_targets": a tuple of names}'
    with torch.device("meta"):
        encoder = TinyViT(SamVisionConfig(output_channels=256))
    try:
        weights = [encoder.get_parameter(f"{name}.weight") for name in lora_targets(encoder, names)]
    except ConfigError as error:
        yield str(error)
    if not {"qkv", "proj"} & set(names):
        yield "no layer of the attention has LoRA: qkv or proj"
    if not {"fc1", "fc2"} & set(names):
        yield "no layer of the MLPs has LoRA: fc1 or fc2"
    if rank < least:
        yield f"a rank of {rank}: at least {least} was asked for, so give some layers none"
    added = rank * sum(sum(weight.shape) for weight in weights)
    if added > budget:
        yield f"{added:,} new weights, {added - budget:,} over the budget"
    if added + added // rank <= budget:
        yield f"{added:,} new weights: a higher rank still fits"


@checker("09.4")
def _lesion_follows(answer: Answer) -> Hints:
    lesion = torch.zeros(12, 20, dtype=torch.bool)
    lesion[2:5, 3:9] = True
    pixels, seen = lesion.float().expand(3, -1, -1) * 2 - 1, set()
    for seed in range(40):
        given = pixels.clone(), lesion.clone()
        picture, target = answer(*given, np.random.default_rng(seed))
        if (tuple(picture.shape), tuple(target.shape)) != ((3, 12, 20), (12, 20)):
            yield f"the shapes (3, H, W) and (H, W) stay, got {tuple(picture.shape)} and {tuple(target.shape)}"
        if not (torch.equal(given[0], pixels) and torch.equal(given[1], lesion)):
            yield "the arguments themselves were changed: give back changed copies"
        found = picture[0] > (picture.min() + picture.max()) / 2
        if (found != target.bool()).float().mean() > 0.02:
            if torch.equal(target.bool(), lesion):
                yield "the picture moved, and the lesion stayed: do the same to both"
            yield "the lesion is not where the picture has it: do the same to both"
        again, _ = answer(*given, np.random.default_rng(seed))
        if not torch.equal(picture, again):
            yield "the same `rng` gave two pictures: draw from it, not from torch or random, or no run can be resumed"
        seen.add(picture.numpy().tobytes())
    if len(seen) == 1:
        yield "always the same change: draw from `rng` whether to mirror, so that the model sees both"
