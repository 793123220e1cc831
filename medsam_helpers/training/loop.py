"""`fit`: the training loop, on embeddings that were computed before."""

import hashlib
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker
from torch import Tensor
from tqdm.auto import tqdm

from medsam_helpers.data.case import Case
from medsam_helpers.device import effective_precision
from medsam_helpers.errors import DataError, TrainingError
from medsam_helpers.sam.embeddings import EmbeddingStore, Resident
from medsam_helpers.sam.loading import model_info
from medsam_helpers.sam.model import Promptable, check_parts, freeze_all_but
from medsam_helpers.sam.segmenter import Segmenter
from medsam_helpers.sam.tuned import part_state
from medsam_helpers.training.dataset import PromptedCases
from medsam_helpers.training.processes import check_shared, processes
from medsam_helpers.training.recipes import Recipe
from medsam_helpers.training.state import STATE_FILE, ExponentialMovingAverage, TrainingState
from medsam_helpers.training.steps import Dev, Learner, get_optimizer, learning_rate, train_epoch

SAVE_MINUTES = 10  # between two states that are saved amid an epoch


@dataclass(frozen=True)
class FitResult:
    """What `fit` leaves behind; the model holds the weights of `best_epoch` (0: those it came with).

    `history` has a row an epoch: `epoch`, `loss`, `lr`, `seconds`, `dev_dice`; under a metric of the reader's own also
    `dev_score`, which then chooses the best epoch. `best_dev_dice` is that epoch's Dice.
    """

    history: pd.DataFrame
    best_epoch: int
    best_dev_dice: float
    precision: str
    seconds: float


def fit(
    model: Promptable,
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
    """History and best epoch of a training on cached embeddings; the model then holds that epoch's weights.

    The state is written to `output` after every epoch, and amid one every `SAVE_MINUTES` where one process runs alone.
    A run that was interrupted or killed goes on from there when it is called again with the same arguments, and ends in
    the same weights; a finished one returns at once.
    Under `torchrun` or `accelerate launch` several processes share each batch.

    Args:
        model: changed in place. Where part of its encoder trains, as `unfrozen` returns it.
        train: cases; the store holds the embeddings of all their views.
        dev: likewise; scored after each epoch in the original space, one fixed draw of the jitter a case.
        recipe: see `recipes`, and `own_parts` for a loss or another part of your own.
        store: of this model's encoder.
        output: folder for the state.
        seed: of order and jitter.
        log_with: `accelerate` trackers, or their names ("mlflow", "wandb", "tensorboard").
        dev_jitter_1024: of the boxes that dev is scored with; default: the recipe's. A search for the best jitter needs
            one of its own, or the smallest would always win.
        start: the digest of what the model begins with, where that is not its base; part of the run's identity.
    Raises:
        DataError: no training or no dev case, or an embedding is missing.
        StoreError: the store is of another encoder.
        ConfigError: `output` holds the state of a run with other arguments.
        TrainingError: the loss is not finite, or a part of your own returns something else than it should.
    """
    if not len(train) or not len(dev):
        raise DataError(f"training needs cases in train and in dev, got {len(train)} and {len(dev)}")
    device, is_first = processes().device, processes().is_main_process
    judge = "dev_dice" if recipe.metric == "dice" else "dev_score"
    check_shared(output)
    # For its trackers only: the recipe's precision is set where the model is called, and `processes` share the batches.
    accelerator = Accelerator(mixed_precision="no", log_with=log_with, project_dir=output, cpu=device.type == "cpu")
    precision = effective_precision(recipe.precision, device)
    info = model_info(model)
    store.check(info)
    check_parts(model, recipe.trainable)
    freeze_all_but(model, recipe.trainable)
    examples = PromptedCases(train, store, info.transform, recipe, seed, show_progress)
    segmenter = Segmenter(model, device, precision, store)  # moves the model there
    scored = Dev(dev, segmenter, recipe.but(jitter_1024=dev_jitter_1024), seed)
    if device.type == "cuda":
        examples.features = scored.features = Resident(store, device)
    identity = {"recipe": recipe.identity(), "seed": seed, "precision": precision, "base_digest": info.base_digest}
    identity["train"] = hashlib.sha256("".join(examples.digests).encode()).hexdigest()
    identity["dev"] = scored.digest
    optional = {"dev_jitter_1024": dev_jitter_1024, "start": start}
    identity |= {name: value for name, value in optional.items() if value is not None}
    state = TrainingState.open(output / STATE_FILE, identity, judge)

    optimizer = get_optimizer(recipe, model)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    state.restore(model, optimizer, scaler)
    average = ExponentialMovingAverage(model, recipe.ema_decay, state.average)
    saved = time.monotonic()

    def save() -> None:
        nonlocal saved
        state.average = {name: weight.cpu() for name, weight in average.weights.items()}
        if is_first:
            state.save(optimizer, scaler)
        saved = time.monotonic()

    def keep(losses: Sequence[Tensor]) -> None:
        if time.monotonic() - saved > 60 * SAVE_MINUTES and processes().num_processes == 1:
            state.losses, state.current = torch.stack(list(losses)).tolist(), part_state(model, recipe.trainable)
            state.seconds = time.perf_counter() - started
            save()

    learner = Learner(model, examples, optimizer, scaler, average, recipe, precision, device, accelerator.log, keep)
    accelerator.init_trackers("medsam", config={name: str(value) for name, value in recipe.as_dict().items()})
    steps_per_epoch = math.ceil(len(examples) / (recipe.batch * recipe.accumulation))

    def finish_epoch(row: dict[str, float]) -> None:
        current = part_state(model, recipe.trainable)
        with average.applied():
            scores = scored.scores()
            row |= {name: score for name, score in scores.items() if name in ("dev_dice", judge)}
            state.record(row, current, part_state(model, recipe.trainable))
        waited = state.epoch - state.best_epoch
        state.finished = state.epoch >= recipe.epochs or (recipe.patience is not None and waited >= recipe.patience)
        save()
        accelerator.log(row | scores | {"epoch": state.epoch}, step=state.epoch * steps_per_epoch)

    if state.epoch < 0:  # nothing done yet: epoch 0 is the model as it came
        finish_epoch({"loss": float("nan"), "lr": 0.0, "seconds": 0.0})

    total, done = recipe.epochs * steps_per_epoch, state.epoch * steps_per_epoch + len(state.losses)
    rate_of = learning_rate if isinstance(recipe.schedule, str) else recipe.schedule
    quiet = not show_progress or not is_first
    if done and not state.finished and not quiet:
        tqdm.write(f"a run that was stopped goes on: epoch {state.epoch + 1}, step {done} of {total}", file=sys.stderr)
    with tqdm(total=total, initial=done, desc=f"fine-tune ({precision})", unit="step", disable=quiet) as bar:
        while not state.finished:
            started = time.perf_counter() - state.seconds
            examples.epoch = state.epoch + 1
            first = state.epoch * steps_per_epoch + len(state.losses)
            rates = ((step + 1, rate_of(step, total, recipe)) for step in range(first, total))
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                loss = train_epoch(learner, examples.order(), rates, bar, [one * is_first for one in state.losses])
            if not math.isfinite(loss):
                advice = f"try a lower learning rate, or precision fp32 (now {precision})"
                kept = f"epoch {state.epoch} is kept in {output}"
                raise TrainingError(f"epoch {state.epoch + 1}: the loss is {loss}; {advice}; {kept}")
            rate = optimizer.param_groups[0]["lr"]
            finish_epoch({"loss": loss, "lr": rate, "seconds": round(time.perf_counter() - started, 2)})
            bar.set_postfix(loss=f"{loss:.3f}", dev_dice=f"{state.history[-1]['dev_dice']:.3f}")

    for tracker in accelerator.trackers:  # not `end_training`, which takes the processes apart
        tracker.finish()
    model.load_state_dict(state.best, strict=False)
    model.eval().requires_grad_(False)
    history = pd.DataFrame(state.history).rename_axis("epoch").reset_index()
    best, seconds = float(history["dev_dice"][state.best_epoch]), float(history["seconds"].sum())
    return FitResult(history, state.best_epoch, best, precision, seconds)
