"""One epoch of training and its score on dev: what `fit` repeats."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from medsam_helpers.data.case import Case
from medsam_helpers.device import autocast
from medsam_helpers.errors import TrainingError
from medsam_helpers.evaluation.evaluate import case_boxes
from medsam_helpers.evaluation.metrics import dice, iou
from medsam_helpers.sam.segmenter import Segmenter
from medsam_helpers.training.losses import get_loss
from medsam_helpers.training.recipes import Recipe
from medsam_helpers.training.state import ExponentialMovingAverage


@dataclass(frozen=True)
class Learner:
    """What a step works with."""

    accelerator: Accelerator
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: ExponentialMovingAverage
    recipe: Recipe
    precision: str


def train_epoch(learner: Learner, loader: DataLoader, rates: Iterator[tuple[int, float]], bar: tqdm) -> float:
    """Mean loss of one pass over the examples; `rates` gives number and learning rate of each optimiser step.

    A first loss that is not finite comes back alone, without a step.

    Raises:
        TrainingError: an own loss returned no scalar, or one without a gradient.
    """
    accelerator, model, optimizer, recipe = learner.accelerator, learner.model, learner.optimizer, learner.recipe
    loss_of, losses = get_loss(recipe.loss), []
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.train()
    for batch in loader:
        with accelerator.accumulate(model):
            target, ignored = batch.pop("target"), batch.pop("ignored", None)
            with autocast(accelerator.device, learner.precision):
                logits = model(**batch, multimask_output=False).pred_masks
            # (B, prompts, masks, h, w) with one prompt and one mask: losses want (B, 1, h, w).
            logits = logits.flatten(0, 1).float()
            if recipe.loss_size:
                logits = F.interpolate(logits, target.shape[-2:], mode="bilinear", align_corners=False)
            if ignored is not None:  # a certain no where nothing counts: neither loss nor gradient
                logits = logits.masked_fill(ignored.bool(), -30.0)
            loss = loss_of(logits, target)
            if not isinstance(loss, Tensor) or loss.ndim or not loss.requires_grad:
                raise TrainingError(f"the loss must return a scalar tensor that has a gradient, returned {loss}")
            losses.append(loss.detach())
            if len(losses) == 1 and not loss.isfinite():
                break
            accelerator.backward(learner.scaler.scale(loss))
            if accelerator.sync_gradients:
                step, rate = next(rates)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                learner.scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
                learner.scaler.step(optimizer)
                learner.scaler.update()
                optimizer.zero_grad()
                learner.average.update()
                if accelerator.trackers:
                    accelerator.log({"step_loss": loss.item(), "step_lr": rate}, step=step)
                bar.update()
    return accelerator.reduce(torch.stack(losses).mean(), "mean").item()


def get_optimizer(recipe: Recipe, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """The recipe's optimiser of these parameters; `TrainingError` where the reader's own returned something else."""
    if isinstance(recipe.optimizer, str):
        return torch.optim.AdamW(parameters, recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    optimizer = recipe.optimizer(parameters, recipe.lr, recipe.weight_decay)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TrainingError(f"the optimizer must return a torch.optim.Optimizer, returned {optimizer}")
    return optimizer


def dev_scores(
    segmenter: Segmenter, dev: Sequence[Case], recipe: Recipe, seed: int, accelerator: Accelerator
) -> dict[str, float]:
    """Mean scores at original size: `dev_dice`, `dev_iou`, of an own metric `dev_score`. Processes share the cases.

    Raises:
        TrainingError: an own metric returned no finite number.
    """
    own = {"dev_score": recipe.metric} if callable(recipe.metric) else {}
    metrics: dict[str, Callable[..., float]] = {"dev_dice": dice, "dev_iou": iou} | own
    total = torch.zeros(len(metrics), device=accelerator.device)
    segmenter.model.eval()
    for index in range(accelerator.process_index, len(dev), accelerator.num_processes):
        case = dev[index]
        masks, _ = segmenter.predict_case(case, case_boxes(case, recipe.box_mode, recipe.jitter_1024, seed))
        prediction = case.counted(np.logical_or.reduce(masks))
        scores = [float(metric(prediction, case.mask)) for metric in metrics.values()]
        if not math.isfinite(scores[-1]):
            raise TrainingError(f"{case.name}: the metric must return a finite number, returned {scores[-1]}")
        total += torch.tensor(scores, device=accelerator.device)
    return dict(zip(metrics, (accelerator.reduce(total, "sum") / len(dev)).tolist(), strict=True))


def learning_rate(step: int, total_steps: int, recipe: Recipe) -> float:
    """Learning rate of a step: a linear warm-up, then a cosine from `lr` to `lr_min`.

    >>> [round(learning_rate(s, 4, Recipe(name="r", lr=1.0)), 3) for s in range(5)]
    [1.0, 0.854, 0.5, 0.146, 0.0]
    """
    if step < recipe.warmup_steps:
        return recipe.lr * (step + 1) / recipe.warmup_steps
    progress = min(1.0, (step - recipe.warmup_steps) / max(1, total_steps - recipe.warmup_steps))
    return recipe.lr_min + (recipe.lr - recipe.lr_min) * (1 + math.cos(math.pi * progress)) / 2
