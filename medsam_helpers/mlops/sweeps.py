"""A search over recipes: Optuna asks, dev answers, several worker processes share one study and lose no trial.

The study is a journal file (Optuna's sqlite storage loses workers that start together). Each trial trains in a folder
of its own name, so that one whose worker was killed goes on where it stopped. Every trial shares the embeddings.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from medsam_helpers.data.sources import load_data
from medsam_helpers.data.views import views_of
from medsam_helpers.device import default_device, effective_precision
from medsam_helpers.errors import DataError, TrainingError
from medsam_helpers.files import atomic_write
from medsam_helpers.mlops.tracking import RunTracker
from medsam_helpers.mlops.trials import BASE_RECIPE, DONE, SPACE, trials_table
from medsam_helpers.runs.finetune import embed_cases
from medsam_helpers.sam.embeddings import EmbeddingStore
from medsam_helpers.sam.loading import load_sam
from medsam_helpers.sam.segmenter import Segmenter
from medsam_helpers.training.recipes import get_recipe

PLAN_FILE, _STUDY, _NAME = "plan.json", "study.jsonl", "sweep"


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep searches on; its workers read it from the sweep's folder.

    Args:
        model: see `load_sam`.
        data: see `load_data`.
        train_limit: cases to train on; None for all. Likewise dev. Val is not looked at.
        epochs: of each trial.
        trials: finished or pruned ones at the end, at least: what the other workers are at by then is kept too.
        recipe: which the trials vary. One without a warm-up: they take few steps.
        dev_jitter_1024: of the boxes on dev, the same for all trials.
        precision: of embeddings and trials; "auto" is decided once, since two workers may measure it differently.
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
    recipe: str = BASE_RECIPE
    dev_jitter_1024: float = 20.0
    precision: str = "auto"
    seed: int = 0
    experiment: str = "medsam-sweep"
    uri: str | None = None


def sweep(folder: str | Path, plan: SweepPlan, workers: int = 2, show_progress: bool = True) -> optuna.Study:
    """Search with several workers; gives the study. One that was stopped goes on when called again.

    A worker that dies is replaced, and the trial that it was at is asked for again. Two deaths for each worker are
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
    plan = _keep_plan(folder, plan)
    study = open_study(folder, plan)
    tracker = None
    if plan.uri:
        tracker = RunTracker(folder / "mlflow", plan.experiment, folder.name, uri=plan.uri)
        tracker.store_init_configuration({k: v for k, v in asdict(plan).items() if k != "uri"})
    dataset = load_data(plan.data, train_limit=plan.train_limit, dev_limit=plan.dev_limit, val_limit=0)
    segmenter = segmenter_of(plan)
    for cases in (views_of(dataset.train, get_recipe(plan.recipe).views), dataset.dev):  # once, for all trials
        embed_cases(segmenter, cases, show_progress)
    if tracker:
        tracker.log_data(dataset)
        tracker.run_id()  # the trials want their whole to be there
    try:
        _supervise(folder, plan, study, workers)
    finally:
        if tracker:
            tracker.log({"best_dev_dice": study.best_value} if finished(study) else {})
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


def segmenter_of(plan: SweepPlan) -> Segmenter:
    """The base model with its store, which all trials share."""
    segmenter = Segmenter(load_sam(plan.model, show_progress=False), precision=plan.precision)
    segmenter.store = EmbeddingStore.for_model(segmenter.info, segmenter.precision)
    return segmenter


def _keep_plan(folder: Path, plan: SweepPlan) -> SweepPlan:
    """Write the plan for the workers, its precision decided; a sweep that goes on keeps what was decided."""
    path = folder / PLAN_FILE
    known = SweepPlan(**json.loads(path.read_text())) if path.exists() else None
    if plan.precision == "auto":
        decided = known.precision if known else effective_precision("auto", default_device())
        plan = replace(plan, precision=decided)
    if known and replace(known, uri=plan.uri, trials=plan.trials) != plan:
        raise DataError(f"{folder}: holds a sweep with another plan; name a new folder")
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(asdict(plan), indent=2) + "\n")
    return plan


def finished(study: optuna.Study) -> list:
    """Trials that count: complete ones and pruned ones."""
    return study.get_trials(deepcopy=False, states=DONE)


def _supervise(folder: Path, plan: SweepPlan, study: optuna.Study, workers: int) -> None:
    """Keep the workers at work until the study has enough trials."""
    _ask_again(study, range(10_000))  # what an earlier call left behind
    command = [sys.executable, "-m", "medsam_helpers.mlops.sweep_worker", str(folder)]
    # Workers with all threads each would wait for one another at every step.
    environment = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // workers)), **os.environ}
    number, running = 0, {}
    try:
        while len(finished(study)) < plan.trials or running:
            enough = len(finished(study)) >= plan.trials
            while len(running) < workers and not enough:
                if number >= 3 * workers:
                    log = (folder / f"worker-{number - 1}.log").read_text(errors="replace")
                    raise TrainingError(f"{folder}: {number} workers died; the log of the last ends so:\n{log[-800:]}")
                with open(folder / f"worker-{number}.log", "ab") as log:
                    running[number] = subprocess.Popen([*command, str(number)], env=environment, stdout=log, stderr=log)
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
