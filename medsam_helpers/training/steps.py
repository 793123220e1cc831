"""One epoch of training and its score on dev: what `fit` repeats."""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm
from tqdm.contrib.concurrent import thread_map

from medsam_helpers.data.case import Case
from medsam_helpers.device import autocast
from medsam_helpers.errors import DataError, TrainingError
from medsam_helpers.evaluation.metrics import dice, iou
from medsam_helpers.evaluation.predictors import case_boxes, centres
from medsam_helpers.geometry import ImageTransform
from medsam_helpers.sam.embeddings import EmbeddingStore, Resident
from medsam_helpers.sam.model import ENCODER, Promptable, part_of
from medsam_helpers.sam.segmenter import Segmenter
from medsam_helpers.training.dataset import Packed, PromptedCases
from medsam_helpers.training.losses import get_loss
from medsam_helpers.training.processes import add_up_gradients, joined, processes, share_of
from medsam_helpers.training.recipes import PromptKind, Recipe
from medsam_helpers.training.refinement import planned, with_clicks
from medsam_helpers.training.state import ExponentialMovingAverage

_Scored = tuple[str, str, ImageTransform, dict[str, Tensor], Packed, Packed]
"""Name, digest of the image, transform, prompts, mask, and where nothing counts."""


@dataclass(frozen=True)
class Learner:
    """What a step works with."""

    model: Promptable
    examples: PromptedCases
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: ExponentialMovingAverage
    recipe: Recipe
    precision: str
    device: torch.device
    log: Callable[..., None]
    keep: Callable[[Sequence[Tensor]], None]  # given an epoch's losses after each step


def passes_of_steps(order: Sequence[int], recipe: Recipe) -> Iterator[list[tuple[list[int], float]]]:
    """Of each optimiser step of an epoch this process's forward passes: examples, and their share of the step.

    Each process takes every N-th example of a batch. One that gets none of a short last batch takes its first with
    weight 0, so that all do each step together. Weighted so, the gradients of all add up to that of one process, for
    every loss that is a mean over the examples.
    """
    number, of = processes().process_index, processes().num_processes
    per_step = recipe.batch * recipe.accumulation
    for first in range(0, len(order), per_step):
        step = order[first : first + per_step]
        batches = [step[start : start + recipe.batch] for start in range(0, len(step), recipe.batch)]
        yield [(list(batch[number::of]) or [batch[0]], len(batch[number::of]) / len(step)) for batch in batches]


def train_epoch(
    learner: Learner, order: Sequence[int], rates: Iterator[tuple[int, float]], bar: tqdm, done: Sequence[float] = ()
) -> float:
    """Mean loss of the optimiser steps of one pass over the examples in that order.

    A first loss that is not finite comes back alone, without a step; but in fp16 its scaler skips such steps.

    Args:
        rates: number and learning rate of each optimiser step.
        done: the losses of the first steps, taken before a stop; 0 but on the first process, since they are added up.
    Raises:
        TrainingError: an own loss returned no scalar, or one without a gradient.
    """
    model, optimizer, recipe = learner.model, learner.optimizer, learner.recipe
    losses, taken = [torch.tensor(loss, device=learner.device) for loss in done], list[tuple[int, float]]()
    batches = count(len(done) * recipe.accumulation)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.train()
    for passes in islice(passes_of_steps(order, recipe), len(done), None):
        # What drops weights out draws from torch's own generator: seeded, so that it does the same after a stop.
        torch.manual_seed(int(learner.examples.draw(processes().process_index, 0, len(losses)).integers(2**63)))
        total = torch.zeros((), device=learner.device)
        for indices, weight in passes:
            plan = planned(recipe, learner.examples.seed, learner.examples.epoch, next(batches))
            for loss in _losses(learner, indices, *plan):
                learner.scaler.scale(loss * weight).backward()
                total += loss.detach() * weight
        losses.append(total)
        if len(losses) == 1 and not learner.scaler.is_enabled() and not all(joined([bool(total.isfinite())])):
            return math.nan
        taken.append(next(rates))
        for group in optimizer.param_groups:
            group["lr"] = taken[-1][1] * group.get("scale", 1)
        add_up_gradients(parameters)
        learner.scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
        learner.scaler.step(optimizer)
        learner.scaler.update()
        optimizer.zero_grad()
        learner.average.update()
        bar.update()
        learner.keep(losses)
    # Fetched once an epoch: a look at each would let a GPU wait for the CPU, and the CPU for the GPU.
    of_steps = np.sum(joined([torch.stack(losses).tolist()]), axis=0)
    for (step, rate), loss in zip(taken, of_steps[len(done) :], strict=True):
        learner.log({"step_loss": float(loss), "step_lr": rate}, step=step)
    return float(np.mean(of_steps[np.isfinite(of_steps)] if learner.scaler.is_enabled() else of_steps))


def _losses(
    learner: Learner, indices: Sequence[int], kind: PromptKind, corrections: Sequence[bool]
) -> Iterator[Tensor]:
    """The loss of the first answer to a batch and of each corrected one, as shares of their mean.

    Each has a graph of its own, so that memory does not grow with the corrections.
    """
    recipe, examples = learner.recipe, learner.examples
    batch = examples.batch(indices, learner.device, kind)
    target, ignored = batch.pop("target"), batch.pop("ignored", None)
    for number in range(1 + len(corrections)):
        with autocast(learner.device, learner.precision):
            answer = learner.model(**batch, multimask_output=False)
        # (B, prompts, masks, h, w) with one prompt and one mask: losses want (B, 1, h, w).
        logits = answer.pred_masks.flatten(0, 1).float()
        if recipe.loss_size:
            logits = F.interpolate(logits, target.shape[-2:], mode="bilinear", align_corners=False)
        if ignored is not None:  # a certain no where nothing counts: neither loss nor gradient
            logits = logits.masked_fill(ignored.bool(), -30.0)
        loss = get_loss(recipe.loss)(logits, target)
        if not isinstance(loss, Tensor) or loss.ndim or not loss.requires_grad:
            raise TrainingError(f"the loss must return a scalar tensor that has a gradient, returned {loss}")
        if recipe.score_weight:
            positive, true = logits.detach() > 0, target > 0
            overlap, union = ((positive & true).sum((1, 2, 3)), (positive | true).sum((1, 2, 3)))
            error = F.mse_loss(answer.iou_scores.flatten().float(), overlap / union.clamp(min=1))
            loss = loss + recipe.score_weight * error
        yield loss / (1 + len(corrections))
        if number < len(corrections):
            batch["input_masks"] = answer.pred_masks[:, 0].detach().float()
            if corrections[number]:
                found, right = ((each[:, 0] > 0).cpu().numpy() for each in (logits.detach(), target))
                draws = [examples.draw(index, number + 1) for index in indices]
                batch = with_clicks(batch, found, right, examples.model_size, draws)


def get_optimizer(recipe: Recipe, model: Promptable) -> torch.optim.Optimizer:
    """The recipe's optimiser of what trains; `TrainingError` where the reader's own returned something else."""
    groups: dict[float, list[nn.Parameter]] = {1.0: []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            scale = (recipe.lr_encoder or recipe.lr) / recipe.lr if part_of(name) in ENCODER else 1.0
            groups.setdefault(scale, []).append(parameter)
    parameters = [{"params": those, "scale": scale} for scale, those in groups.items() if those]
    if isinstance(recipe.optimizer, str):
        return torch.optim.AdamW(parameters, recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    optimizer = recipe.optimizer(parameters, recipe.lr, recipe.weight_decay)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TrainingError(f"the optimizer must return a torch.optim.Optimizer, returned {optimizer}")
    return optimizer


class Dev:
    """The cases that choose the epoch, as each scoring needs them: prompt and mask; their pixels are read once.

    The segmenter is that of the model that trains, and its store holds their embeddings, else a `DataError` names one.
    The recipe gives kind of prompt (the first), boxes, jitter (one fixed draw a case, of the seed) and metric.
    """

    def __init__(self, cases: Sequence[Case], segmenter: Segmenter, recipe: Recipe, seed: int) -> None:
        self.segmenter, store = segmenter, segmenter.store
        assert store is not None, "the segmenter has no store"
        own = {"dev_score": recipe.metric} if callable(recipe.metric) else {}
        self.metrics: dict[str, Callable[..., float]] = {"dev_dice": dice, "dev_iou": iou} | own
        self.features: EmbeddingStore | Resident = store

        def prepared(index: int) -> tuple[str, _Scored]:
            case = cases[index]
            if case.image_digest not in store:
                raise DataError(f"{case.name}: no embedding of this image in {store.folder}; embed the data first")
            kind, prompts, transform = recipe.prompts[0], dict[str, Tensor](), segmenter.info.transform(case.size_hw)
            if kind != "none":
                boxes = case_boxes(case, recipe.box_mode, recipe.jitter_1024, seed)
                points = None if kind in ("box", "mask") else centres(case.mask, boxes)
                prompts = segmenter.prompt_inputs(transform, None if kind in ("point", "several") else boxes, points)
            nowhere = np.zeros_like(case.mask) if case.ignored is None else case.ignored
            return case.digest, (case.name, case.image_digest, transform, prompts, Packed(case.mask), Packed(nowhere))

        digests, self._cases = zip(*thread_map(prepared, range(len(cases)), disable=True), strict=True)
        self.digest = hashlib.sha256("".join(digests).encode()).hexdigest()

    def scores(self) -> dict[str, float]:
        """Mean scores at original size: `dev_dice`, `dev_iou`, of an own metric `dev_score`. Processes share the cases.

        `TrainingError` where an own metric returned no finite number.
        """
        self.segmenter.model.eval()
        mine = [self._cases[index] for index in share_of(len(self._cases))]
        at_once = 1 if self.segmenter.device.type == "cpu" else 16
        groups = [mine[first : first + at_once] for first in range(0, len(mine), at_once)]
        scores = joined([row for group in groups for row in self._scores_of(group)])
        return dict(zip(self.metrics, np.mean(scores, axis=0).tolist(), strict=True))

    def _scores_of(self, group: Sequence[_Scored]) -> Iterator[list[float]]:
        counts = [len(next(iter(prompts.values()), [None])) for _, _, _, prompts, _, _ in group]
        features = [self.features[digest][None].float() for _, digest, *_ in group]
        each = torch.cat([one.expand(count, -1, -1, -1) for one, count in zip(features, counts, strict=True)])
        asked = {name: torch.cat([prompts[name] for _, _, _, prompts, _, _ in group]) for name in group[0][3]}
        logits, _ = self.segmenter.decode(each, asked)
        for (name, _, transform, _, mask, nowhere), answers in zip(group, logits.split(counts), strict=True):
            found = (transform.logits_to_original(answers) > 0).any(dim=0)[0].cpu().numpy() & ~nowhere.array()
            row = [float(metric(found, mask.array())) for metric in self.metrics.values()]
            if not math.isfinite(row[-1]):
                raise TrainingError(f"{name}: the metric must return a finite number, returned {row[-1]}")
            yield row


def learning_rate(step: int, total_steps: int, recipe: Recipe) -> float:
    """Learning rate of a step: a linear warm-up, then a cosine from `lr` to `lr_min`.

    >>> [round(learning_rate(s, 4, Recipe(name="r", lr=1.0)), 3) for s in range(5)]
    [1.0, 0.854, 0.5, 0.146, 0.0]
    """
    if step < recipe.warmup_steps:
        return recipe.lr * (step + 1) / recipe.warmup_steps
    progress = min(1.0, (step - recipe.warmup_steps) / max(1, total_steps - recipe.warmup_steps))
    return recipe.lr_min + (recipe.lr - recipe.lr_min) * (1 + math.cos(math.pi * progress)) / 2
