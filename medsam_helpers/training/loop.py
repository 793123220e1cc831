"""`fit`: the training loop, on embeddings that were computed before."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from accelerate import Accelerator, DataLoaderConfiguration, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from accelerate.tracking import GeneralTracker
from torch import nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import SamModel

from medsam_helpers.data.case import Case
from medsam_helpers.device import default_device, effective_precision
from medsam_helpers.errors import DataError, TrainingError
from medsam_helpers.evaluation.evaluate import case_boxes
from medsam_helpers.evaluation.metrics import dice
from medsam_helpers.sam.embeddings import EmbeddingStore
from medsam_helpers.sam.loading import model_info
from medsam_helpers.sam.parts import freeze_all_but
from medsam_helpers.sam.segmenter import Segmenter
from medsam_helpers.sam.tuned import part_state
from medsam_helpers.training.dataset import EpochOrder, PromptedCases
from medsam_helpers.training.ema import ExponentialMovingAverage
from medsam_helpers.training.losses import get_loss
from medsam_helpers.training.recipes import Recipe
from medsam_helpers.training.state import STATE_FILE, TrainingState


@dataclass(frozen=True)
class FitResult:
    """What `fit` leaves behind; the model holds the weights of `best_epoch` (0: those it came with)."""

    history: pd.DataFrame
    best_epoch: int
    best_dev_dice: float
    precision: str
    seconds: float


def learning_rate(step: int, total_steps: int, recipe: Recipe) -> float:
    """Linear warm-up, then a cosine from `lr` to `lr_min`.

    >>> [round(learning_rate(s, 4, Recipe("r", "", lr=1.0)), 3) for s in range(5)]
    [1.0, 0.854, 0.5, 0.146, 0.0]
    """
    if step < recipe.warmup_steps:
        return recipe.lr * (step + 1) / recipe.warmup_steps
    progress = min(1.0, (step - recipe.warmup_steps) / max(1, total_steps - recipe.warmup_steps))
    return recipe.lr_min + (recipe.lr - recipe.lr_min) * (1 + math.cos(math.pi * progress)) / 2


def fit(
    model: SamModel,
    train: Sequence[Case],
    dev: Sequence[Case],
    recipe: Recipe,
    store: EmbeddingStore,
    output: Path,
    *,
    seed: int = 0,
    log_with: str | GeneralTracker | Sequence[str | GeneralTracker] | None = None,
    dev_jitter_1024: float | None = None,
    start: str | None = None,
    show_progress: bool = True,
) -> FitResult:
    """Train the recipe's parts on cached embeddings; keep the weights with the best dev Dice.

    The state is written to `output` after every epoch. A run that was interrupted or killed goes on from there when
    it is called again with the same arguments, and ends in the same weights; a finished one returns at once.
    Under `torchrun` or `accelerate launch` several processes share each batch.

    Args:
        model: changed in place.
        train: cases; the embeddings of all views of them are in the store.
        dev: likewise; scored after each epoch at original size, with the recipe's jitter, one fixed draw a case.
        recipe: see `recipes`.
        store: of this model's encoder.
        output: folder for the state.
        seed: of order and jitter.
        log_with: an `accelerate` tracker, or its name ("mlflow", "wandb", "tensorboard"), that gets loss and rate of
            each step, and dev Dice and IoU of each epoch; the axis of both is the optimiser's steps.
        dev_jitter_1024: of the boxes that dev is scored with. Default: the recipe's; where that is what is searched
            for, dev needs one of its own, or the smallest jitter would always win.
        start: the digest of what the model begins with, where that is not its base; a run with another is another run.
        show_progress: show the bar.
    Raises:
        DataError: no training or no dev case, or an embedding is missing.
        ConfigError: `output` holds the state of a run with other arguments.
        TrainingError: the loss is not finite.
    """
    if not len(train) or not len(dev):
        raise DataError(f"training needs cases in train and in dev, got {len(train)} and {len(dev)}")
    accelerator = _accelerator(recipe, output, log_with)
    precision = effective_precision(recipe.precision, accelerator.device)
    info, parameters = model_info(model), freeze_all_but(model, recipe.trainable)
    examples = PromptedCases(
        train,
        store,
        info.transform,
        recipe.jitter_1024,
        recipe.box_mode,
        seed,
        recipe.views,
        show_progress,
        recipe.loss_size,
        recipe.augment,
        recipe.oversampling,
    )
    identity = {
        "recipe": recipe.as_dict(),
        "seed": seed,
        "precision": precision,
        "base_digest": info.base_digest,
        "train": hashlib.sha256("".join(examples.digests).encode()).hexdigest(),
        "dev": hashlib.sha256("".join(case.digest for case in dev).encode()).hexdigest(),
    }
    later = {"dev_jitter_1024": dev_jitter_1024, "start": start}
    identity |= {name: value for name, value in later.items() if value is not None}
    dev_recipe = recipe.but(jitter_1024=dev_jitter_1024)
    state = TrainingState.open(output / STATE_FILE, identity)
    optimizer = torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    state.restore(model, optimizer)
    loader = DataLoader(examples, batch_size=recipe.batch, sampler=EpochOrder(examples))
    wrapped, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    if accelerator.scaler is not None and state.scaler:
        accelerator.scaler.load_state_dict(state.scaler)
    average = ExponentialMovingAverage(model, recipe.ema_decay)
    average.load(state.average)
    accelerator.init_trackers("medsam", config={k: str(v) for k, v in recipe.as_dict().items()})
    steps_per_epoch = math.ceil(len(loader) / recipe.accumulation)

    def finish_epoch(row: dict[str, float]) -> None:
        current = part_state(model, recipe.trainable)
        with average.applied():
            row["dev_dice"], dev_iou = _dev_scores(model, dev, dev_recipe, store, seed, accelerator)
            state.record(row, current, part_state(model, recipe.trainable))
        state.average = {name: weight.cpu() for name, weight in average.weights.items()}
        waited = state.epoch - state.best_epoch
        state.finished = state.epoch >= recipe.epochs or (recipe.patience is not None and waited >= recipe.patience)
        if accelerator.is_main_process:
            state.save(optimizer, accelerator.scaler)
        accelerator.log(row | {"dev_iou": dev_iou, "epoch": state.epoch}, step=state.epoch * steps_per_epoch)

    if state.epoch < 0:  # nothing done yet: epoch 0 is the model as it came
        finish_epoch({"loss": float("nan"), "lr": 0.0, "seconds": 0.0})

    done, total = state.epoch * steps_per_epoch, recipe.epochs * steps_per_epoch
    quiet = not show_progress or not accelerator.is_main_process
    with tqdm(total=total, initial=done, desc=f"fine-tune ({precision})", unit="step", disable=quiet) as bar:
        while not state.finished:
            started = time.perf_counter()
            examples.epoch = state.epoch + 1
            steps = range(state.epoch * steps_per_epoch, total)
            schedule = ((step + 1, learning_rate(step, total, recipe)) for step in steps)
            loss = _train_epoch(wrapped, loader, optimizer, accelerator, recipe, schedule, average, bar)
            if not math.isfinite(loss):
                raise TrainingError(
                    f"epoch {state.epoch + 1}: the loss is {loss}; try a lower learning rate, or precision fp32 "
                    f"(now {precision}). Epoch {state.epoch} is kept in {output}"
                )
            rate = optimizer.param_groups[0]["lr"]
            finish_epoch({"loss": loss, "lr": rate, "seconds": round(time.perf_counter() - started, 2)})
            bar.set_postfix(loss=f"{loss:.3f}", dev_dice=f"{state.history[-1]['dev_dice']:.3f}")

    accelerator.end_training()
    accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)
    model.load_state_dict(state.best, strict=False)
    model.eval().requires_grad_(False)
    history = pd.DataFrame(state.history).rename_axis("epoch").reset_index()
    return FitResult(history, state.best_epoch, state.best_dice, precision, float(history["seconds"].sum()))


def _train_epoch(
    model: nn.Module,
    loader: DataLoader,
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator,
    recipe: Recipe,
    schedule: Iterator[tuple[int, float]],
    average: ExponentialMovingAverage,
    bar: tqdm,
) -> float:
    """One pass over the examples; gives the mean loss."""
    loss_of, losses = get_loss(recipe.loss), []
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.train()
    for batch in loader:
        with accelerator.accumulate(model):
            target = batch.pop("target")
            logits = model(**batch, multimask_output=False).pred_masks
            # (B, prompts, masks, h, w) with one prompt and one mask: losses want (B, 1, h, w).
            logits = logits.flatten(0, 1)
            if recipe.loss_size:
                logits = F.interpolate(logits.float(), target.shape[-2:], mode="bilinear", align_corners=False)
            loss = loss_of(logits, target)
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(parameters, recipe.clip_norm)
                step, rate = next(schedule)
                if accelerator.trackers:
                    accelerator.log({"step_loss": loss.item(), "step_lr": rate}, step=step)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                bar.update()
            optimizer.step()
            optimizer.zero_grad()
            if accelerator.sync_gradients:
                average.update()
        losses.append(loss.detach())
    return accelerator.reduce(torch.stack(losses).mean(), "mean").item()


def _accelerator(recipe: Recipe, output: Path, log_with: Any) -> Accelerator:
    precision = effective_precision(recipe.precision, default_device())
    # accelerate keeps one precision a process; a notebook trains several recipes in one.
    AcceleratorState._reset_state()
    return Accelerator(
        mixed_precision="no" if precision == "fp32" else precision,
        gradient_accumulation_steps=recipe.accumulation,
        # The recipe's batch is the whole one: several processes share it, and so take the same steps as one.
        dataloader_config=DataLoaderConfiguration(split_batches=True),
        # Dice and cross-entropy give the IoU head no gradient.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        log_with=log_with,
        project_dir=output,
        cpu=default_device().type == "cpu",
    )


def _dev_scores(
    model: SamModel,
    dev: Sequence[Case],
    recipe: Recipe,
    store: EmbeddingStore,
    seed: int,
    accelerator: Accelerator,
) -> tuple[float, float]:
    """Mean Dice and IoU at original size; each process scores its share."""
    segmenter = Segmenter(model, accelerator.device, store=store)
    total = torch.zeros(2, device=accelerator.device)
    for index in range(accelerator.process_index, len(dev), accelerator.num_processes):
        case = dev[index]
        masks, _ = segmenter.predict_case(case, case_boxes(case, recipe.box_mode, recipe.jitter_1024, seed))
        score = dice(masks.any(axis=0), case.mask)
        total += torch.tensor([score, score / (2 - score)], device=accelerator.device)
    dice_sum, iou_sum = accelerator.reduce(total, "sum").tolist()
    return dice_sum / len(dev), iou_sum / len(dev)
