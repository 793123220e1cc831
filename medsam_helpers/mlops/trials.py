"""What a sweep searches and what came of it: plan and search space, the study, the table of its trials."""

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from medsam_helpers.data.case import Dataset
from medsam_helpers.data.loading import load_data
from medsam_helpers.device import default_device, effective_precision
from medsam_helpers.errors import ConfigError
from medsam_helpers.files import write_text
from medsam_helpers.sam.embeddings import EmbeddingStore
from medsam_helpers.sam.loading import load_sam
from medsam_helpers.sam.segmenter import Segmenter
from medsam_helpers.training.recipes import Recipe, get_recipe

PLAN_FILE, _STUDY_FILE, REFUSED = "plan.json", "study.jsonl", "refused"
_RECIPE = "medsam"  # a recipe without a warm-up: trials take few steps
SPACE: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(1e-5, 1e-3, log=True),
    "loss": CategoricalDistribution(("dice_ce", "dice_bce", "sam")),
    "jitter_1024": CategoricalDistribution((0.0, 10.0, 20.0, 40.0)),
    "batch": CategoricalDistribution((2, 4, 8)),
    "weight_decay": FloatDistribution(1e-4, 0.1, log=True),
}
"""Fields of the recipe, and what a trial may draw for each."""
optuna.logging.set_verbosity(optuna.logging.WARNING)  # the table says it better than a line a trial


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep searches on; its workers read it from the sweep's folder. Val is not looked at."""

    model: str = "mobile-sam"  # see `load_sam`
    data: str = "phantom-ultrasound"  # see `load_data`
    train_limit: int | None = 32  # cases to train on; None for all
    dev_limit: int | None = None
    epochs: int = 3  # of each trial
    trials: int = 24  # finished or pruned ones at the end, at least
    precision: str = "auto"  # of embeddings and trials; decided once, since two workers may measure it differently
    experiment: str = "medsam-sweep"  # of MLflow, where each trial becomes a run inside the sweep's
    uri: str | None = None  # of MLflow; default: see `tracking_uri`

    @property
    def recipe(self) -> Recipe:
        """The recipe that the trials vary."""
        return get_recipe(_RECIPE).but(epochs=self.epochs, precision=self.precision)

    def prepare(self) -> tuple[Dataset, Segmenter, EmbeddingStore]:
        """The data, the base model, and its store of embeddings, which all trials share."""
        dataset = load_data(self.data, train_limit=self.train_limit, dev_limit=self.dev_limit, val_limit=0)
        segmenter = Segmenter(load_sam(self.model, show_progress=False), precision=self.precision)
        segmenter.store = store = EmbeddingStore.for_model(segmenter.info, segmenter.precision)
        return dataset, segmenter, store


def read_plan(folder: Path) -> SweepPlan:
    """The plan of the sweep in a folder; `ConfigError` where another version of this package wrote it."""
    try:
        return SweepPlan(**json.loads((folder / PLAN_FILE).read_text()))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{folder / PLAN_FILE}: no plan of this version ({error}); name a new folder") from error


def keep_plan(folder: Path, plan: SweepPlan) -> SweepPlan:
    """The plan as it is written for the workers, its precision decided; a sweep that goes on keeps that."""
    known = read_plan(folder) if (folder / PLAN_FILE).exists() else None
    if plan.precision == "auto":
        plan = replace(plan, precision=known.precision if known else effective_precision("auto", default_device()))
    if known and replace(known, uri=plan.uri, trials=plan.trials) != plan:
        raise ConfigError(f"{folder}: holds a sweep with another plan; name a new folder")
    write_text(folder / PLAN_FILE, json.dumps(asdict(plan), indent=2) + "\n")
    return plan


def mend_study(folder: Path) -> None:
    """Cut off the half line that a full disk may have left in the study; before any worker writes to it again."""
    if (file := folder / _STUDY_FILE).exists():
        os.truncate(file, file.read_bytes().rfind(b"\n") + 1)


def open_study(folder: Path, worker: int = 0) -> optuna.Study:
    """The study in a sweep's folder, made where missing; a file, since sqlite loses workers that start together.

    Whoever opens it later draws other values: the sampler's seed follows from the worker and the trials that are there.
    """
    storage = JournalStorage(JournalFileBackend(str(folder / _STUDY_FILE)))
    study = optuna.create_study(storage=storage, study_name="sweep", direction="maximize", load_if_exists=True)
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=4)
    seed = int(np.random.SeedSequence([worker, len(study.trials)]).generate_state(1)[0])
    study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=8, constant_liar=True)
    return study


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that count: complete ones and pruned ones."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def refused(study: optuna.Study) -> list[str]:
    """What training said of each trial that it refused."""
    failed = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    return [trial.user_attrs[REFUSED] for trial in failed if REFUSED in trial.user_attrs]


def is_over(study: optuna.Study, plan: SweepPlan) -> bool:
    """Whether the study has its trials, or training refused twice as many."""
    return len(finished(study)) >= plan.trials or len(refused(study)) >= 2 * plan.trials


def best_recipe(study: optuna.Study, **change: Any) -> Recipe:
    """The recipe of the trial with the highest dev Dice, named a winner; `change`: what else differs, say epochs."""
    told = {"name": "sweep-winner", "source": f"{len(study.trials)} trials on dev"}
    return get_recipe(_RECIPE).but(**told, **study.best_params, **change)


def trials_table(study: optuna.Study) -> pd.DataFrame:
    """A trial a row, the best first: number, state, dev Dice at the end and after an epoch, epochs, seconds, values.

    `failed` says why a trial has no score: "died" with its worker, or what training said when it refused.
    """
    rows = [
        {
            "trial": trial.number,
            "state": trial.state.name.lower(),
            "failed": trial.user_attrs.get(REFUSED, "died") if trial.state == TrialState.FAIL else "",
            "dev_dice": trial.value,
            "first_dice": trial.intermediate_values.get(1),
            "epochs": max(trial.intermediate_values, default=0),
            "seconds": round(trial.duration.total_seconds(), 1) if trial.duration else None,
            **trial.params,
        }
        for trial in study.trials
    ]
    return pd.DataFrame(rows).sort_values("dev_dice", ascending=False, ignore_index=True)


def study_of(table: pd.DataFrame) -> optuna.Study:
    """A study in memory with the trials of `trials_table`, each by its dev Dice after one epoch, which all have."""
    study = optuna.create_study(direction="maximize")
    for row in table[table["state"].isin(["complete", "pruned"])].sort_values("trial").to_dict("records"):
        params = {name: row[name] for name in SPACE}
        study.add_trial(optuna.create_trial(value=row["first_dice"], params=params, distributions=SPACE))
    return study
