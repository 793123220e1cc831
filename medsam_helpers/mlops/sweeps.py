"""A search over recipes: Optuna asks, dev answers, several worker processes share one study and lose no trial.

The study is a journal file (Optuna's sqlite storage loses workers that start together). Each trial trains in a folder
of its own name, so that one whose worker was killed goes on where it stopped. Every trial shares the embeddings.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from accelerate.tracking import GeneralTracker
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial, TrialState

from medsam_helpers.data import load_data
from medsam_helpers.embeddings import EmbeddingStore
from medsam_helpers.errors import DataError, TrainingError
from medsam_helpers.experiment import embed_cases
from medsam_helpers.files import atomic_write
from medsam_helpers.mlops.tracking import RunTracker
from medsam_helpers.models import load_sam
from medsam_helpers.recipes import Recipe, get_recipe
from medsam_helpers.segmenter import Segmenter
from medsam_helpers.training import fit

_PLAN, _STUDY, _NAME = "plan.json", "study.jsonl", "sweep"
_DONE = (TrialState.COMPLETE, TrialState.PRUNED)
SPACE: dict[str, tuple] = {
    "lr": (1e-5, 1e-3),
    "loss": ("dice_ce", "dice_bce", "sam"),
    "jitter_1024": (0.0, 10.0, 20.0, 40.0),
    "batch": (2, 4, 8),
    "weight_decay": (1e-4, 0.1),
}
"""Rate and decay: from, to, by their logarithm; the others: one of these."""


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep searches on; its workers read it from the sweep's folder.

    Args:
        model: see `load_sam`.
        data: see `load_data`.
        train_limit: cases to train on; None for all. Likewise dev. Val is not looked at.
        epochs: of each trial.
        trials: finished or pruned ones at the end.
        recipe: which the trials vary.
        dev_jitter_1024: of the boxes on dev, the same for all trials.
        seed: of the sampler (plus the worker's number) and of every training.
        experiment: of MLflow; each trial becomes a run inside the sweep's.
        uri: of the server; None leaves MLflow out.
    """

    model: str = "mobile-sam"
    data: str = "phantom-ultrasound"
    train_limit: int | None = 32
    dev_limit: int | None = None
    epochs: int = 3
    trials: int = 24
    recipe: str = "best"
    dev_jitter_1024: float = 20.0
    seed: int = 0
    experiment: str = "medsam-sweep"
    uri: str | None = None


def sweep(folder: str | Path, plan: SweepPlan, workers: int = 2, show_progress: bool = True) -> optuna.Study:
    """Search with several workers; gives the study. One that was stopped goes on when called again.

    A worker that dies is replaced, and the trial that it was at is asked for again. Three deaths for each worker are
    put up with, then the sweep gives up.

    Args:
        folder: of the study, the trials and the logs of the workers.
        plan: what to search on.
        workers: processes at once.
        show_progress: of the embedding.
    Raises:
        DataError: the folder holds another plan's sweep.
        TrainingError: workers die again and again; with the end of the log of one.
    """
    folder = Path(folder).absolute()
    _keep_plan(folder, plan)
    study = open_study(folder, plan)
    tracker = None
    if plan.uri:
        tracker = RunTracker(folder / "mlflow", plan.experiment, folder.name, uri=plan.uri)
        tracker.store_init_configuration({k: v for k, v in asdict(plan).items() if k != "uri"})
    dataset = load_data(plan.data, train_limit=plan.train_limit, dev_limit=plan.dev_limit, val_limit=0)
    segmenter = _segmenter(plan)
    for cases in (dataset.train, dataset.dev):  # once, for all trials
        embed_cases(segmenter, cases, show_progress)
    if tracker:
        tracker.log_data(dataset)
        tracker.run_id()  # the trials want their whole to be there
    try:
        _supervise(folder, plan, study, workers)
    finally:
        if tracker:
            tracker.log({"best_dev_dice": study.best_value} if _finished(study) else {})
            tracker.end()
    trials_table(study).to_csv(folder / "trials.csv", index=False)
    return study


def open_study(folder: Path, plan: SweepPlan | None = None, worker: int = 0) -> optuna.Study:
    """The study in a sweep's folder, made where a plan is given and there is none."""
    storage = JournalStorage(JournalFileBackend(str(folder / _STUDY)))
    if plan is None:
        return optuna.load_study(study_name=_NAME, storage=storage)
    sampler = optuna.samplers.TPESampler(seed=plan.seed + worker, n_startup_trials=8, constant_liar=True)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=4)
    return optuna.create_study(
        study_name=_NAME, storage=storage, sampler=sampler, pruner=pruner, direction="maximize", load_if_exists=True
    )


def trials_table(study: optuna.Study) -> pd.DataFrame:
    """A trial a row: number, state, dev Dice, epochs it was given, seconds, and what was tried; the best first."""
    rows = [
        {
            "trial": trial.number,
            "state": trial.state.name.lower(),
            "dev_dice": trial.value if trial.value is not None else float("nan"),
            "epochs": max(trial.intermediate_values, default=0),
            "seconds": round(trial.duration.total_seconds(), 1) if trial.duration else float("nan"),
            **trial.params,
        }
        for trial in study.trials
    ]
    return pd.DataFrame(rows).sort_values("dev_dice", ascending=False, ignore_index=True)


def suggest(trial: Trial, recipe: Recipe) -> Recipe:
    """The recipe that a trial tries."""
    return dataclasses.replace(
        recipe,
        lr=trial.suggest_float("lr", *SPACE["lr"], log=True),
        loss=trial.suggest_categorical("loss", SPACE["loss"]),
        jitter_1024=trial.suggest_categorical("jitter_1024", SPACE["jitter_1024"]),
        batch=trial.suggest_categorical("batch", SPACE["batch"]),
        weight_decay=trial.suggest_float("weight_decay", *SPACE["weight_decay"], log=True),
    )


def best_recipe(study: optuna.Study, recipe: str = "best") -> Recipe:
    """The recipe of the trial with the highest dev Dice."""
    return suggest(optuna.trial.FixedTrial(study.best_params), get_recipe(recipe))


class Pruner(GeneralTracker):
    """Tells Optuna each epoch's dev Dice, and stops a trial that is not worth its time.

    Raises:
        optuna.TrialPruned: from `log`, out of `fit`.
    """

    name = "optuna"
    requires_logging_directory = False

    def __init__(self, trial: Trial) -> None:
        super().__init__()
        self.trial = trial

    @property
    def tracker(self) -> Trial:
        """Accelerate asks for what a tracker writes to."""
        return self.trial

    def log(self, values: dict, step: int | None = None, **_: Any) -> None:
        """Report the epochs; steps go by."""
        if values.get("epoch"):
            self.trial.report(values["dev_dice"], int(values["epoch"]))
            if self.trial.should_prune():
                raise optuna.TrialPruned


def work(folder: Path, worker: int) -> None:
    """What a worker process does: trials until the study has enough."""
    plan = SweepPlan(**json.loads((folder / _PLAN).read_text()))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    dataset = load_data(plan.data, train_limit=plan.train_limit, dev_limit=plan.dev_limit, val_limit=0)
    segmenter = _segmenter(plan)
    parent = json.loads((folder / "mlflow" / "journal-0.jsonl").open().readline())["key"] if plan.uri else None

    def objective(trial: Trial) -> float:
        trial.set_user_attr("worker", worker)
        recipe = suggest(trial, dataclasses.replace(get_recipe(plan.recipe), epochs=plan.epochs))
        place = folder / "trials" / trial_name(trial.params)
        loggers: list[GeneralTracker] = []
        if plan.uri:
            name = f"trial {trial.number}"
            run = RunTracker(place, plan.experiment, name, parent=parent, uri=plan.uri, hardware_s=0)
            loggers.append(run)
        try:
            result = fit(
                copy.deepcopy(segmenter.model),
                dataset.train,
                dataset.dev,
                recipe,
                segmenter.store,
                place,
                seed=plan.seed,
                dev_jitter_1024=plan.dev_jitter_1024,
                log_with=[*loggers, Pruner(trial)],
                show_progress=False,
            )
        except optuna.TrialPruned:
            status = "KILLED"
            raise
        except BaseException:
            status = "FAILED"
            raise
        else:
            status = "FINISHED"
        finally:
            for run in loggers:
                run.set_tags({"medsam.trial": str(trial.number), "medsam.kind": "trial"})
                run.end(status)
        return result.best_dev_dice

    stop = optuna.study.MaxTrialsCallback(plan.trials, states=_DONE)
    study = open_study(folder, plan, worker)
    if len(_finished(study)) < plan.trials:
        study.optimize(objective, callbacks=[stop], catch=(TrainingError,))


def trial_name(params: dict[str, Any]) -> str:
    """The folder of a trial, by what it tries: asked for again, it finds its own state there."""
    return "-".join(f"{value:.3g}" if isinstance(value, float) else str(value) for value in params.values())


def _segmenter(plan: SweepPlan) -> Segmenter:
    segmenter = Segmenter(load_sam(plan.model, show_progress=False), precision=get_recipe(plan.recipe).precision)
    segmenter.store = EmbeddingStore.for_model(segmenter.info, segmenter.precision)
    return segmenter


def _keep_plan(folder: Path, plan: SweepPlan) -> None:
    path, text = folder / _PLAN, json.dumps(asdict(plan), indent=2) + "\n"
    if path.exists():
        known = json.loads(path.read_text()) | {"uri": plan.uri, "trials": plan.trials}
        if known != asdict(plan):
            raise DataError(f"{folder}: holds a sweep with another plan; name a new folder")
    with atomic_write(path) as temporary:
        temporary.write_text(text)


def _finished(study: optuna.Study) -> list:
    return study.get_trials(deepcopy=False, states=_DONE)


def _supervise(folder: Path, plan: SweepPlan, study: optuna.Study, workers: int) -> None:
    """Keep the workers at work until the study has enough trials."""
    _ask_again(study, range(10_000))  # what an earlier call left behind
    command = [sys.executable, "-m", "medsam_helpers.mlops.sweeps", str(folder)]
    number, running = 0, {}
    try:
        while len(_finished(study)) < plan.trials or running:
            enough = len(_finished(study)) >= plan.trials
            while len(running) < workers and not enough:
                if number >= 4 * workers:
                    log = (folder / f"worker-{number - 1}.log").read_text(errors="replace")
                    raise TrainingError(f"{folder}: {number} workers died; the log of the last ends so:\n{log[-800:]}")
                with open(folder / f"worker-{number}.log", "ab") as log:
                    running[number] = subprocess.Popen([*command, str(number)], stdout=log, stderr=log)
                number += 1
            for ended in [n for n, process in running.items() if process.poll() is not None]:
                del running[ended]
                _ask_again(study, [ended])
            time.sleep(0.3)
    finally:
        for process in running.values():
            process.terminate()
            process.wait()


def _ask_again(study: optuna.Study, workers: Any) -> None:
    """Trials that died with their worker: marked as failed, and queued with the same values."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if trial.user_attrs.get("worker", -1) in (*workers, -1):
            study.tell(trial.number, state=TrialState.FAIL)
            if len(trial.params) == len(SPACE):
                study.enqueue_trial(trial.params, user_attrs={"again_for": trial.number})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="One worker of a sweep; `sweep` starts them.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("worker", type=int)
    asked = parser.parse_args()
    work(asked.folder, asked.worker)
