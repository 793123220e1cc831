"""A worker of a sweep: a process that trains trials until the study has enough; `sweep` starts it."""

from __future__ import annotations

import argparse
import copy
import json
import os
from pathlib import Path
from typing import Any

import optuna
from accelerate.tracking import GeneralTracker
from optuna.trial import Trial

from medsam_helpers.data.sources import load_data
from medsam_helpers.errors import TrainingError
from medsam_helpers.mlops.sweeps import PLAN_FILE, SweepPlan, finished, open_study, segmenter_of
from medsam_helpers.mlops.tracking import RunTracker
from medsam_helpers.mlops.trials import DONE, suggest
from medsam_helpers.training.loop import fit
from medsam_helpers.training.recipes import get_recipe


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
    plan = SweepPlan(**json.loads((folder / PLAN_FILE).read_text()))
    dataset = load_data(plan.data, train_limit=plan.train_limit, dev_limit=plan.dev_limit, val_limit=0)
    segmenter = segmenter_of(plan)
    parent = json.loads((folder / "mlflow" / "journal-0.jsonl").open().readline())["key"] if plan.uri else None

    def objective(trial: Trial) -> float:
        trial.set_user_attr("worker", worker)
        recipe = suggest(trial, get_recipe(plan.recipe).but(epochs=plan.epochs, precision=plan.precision))
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

    enough, boss = optuna.study.MaxTrialsCallback(plan.trials, states=DONE), os.getppid()

    def alone(study: optuna.Study, _: optuna.trial.FrozenTrial) -> None:
        if os.getppid() != boss:  # nobody would ask again for what this worker leaves behind
            study.stop()

    study = open_study(folder, plan, worker)
    if len(finished(study)) < plan.trials:
        study.optimize(objective, callbacks=[enough, alone], catch=(TrainingError,))


def trial_name(params: dict[str, Any]) -> str:
    """The folder of a trial, by what it tries: asked for again, it finds its own state there."""
    return "-".join(f"{value:.3g}" if isinstance(value, float) else str(value) for value in params.values())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="One worker of a sweep; `sweep` starts them.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("worker", type=int)
    asked = parser.parse_args()
    work(asked.folder, asked.worker)
