"""A search over recipes, judged by dev Dice: several worker processes share one study and lose no trial.

Each trial trains in a folder of its own name, so that one whose worker was killed goes on where it stopped.
"""

import copy
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from accelerate.tracking import GeneralTracker
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from optuna.trial import Trial, TrialState

from medsam_helpers.data.views import views_of
from medsam_helpers.errors import TrainingError
from medsam_helpers.mlops import trials
from medsam_helpers.mlops.server import wait_until
from medsam_helpers.mlops.tracking import RunTracker
from medsam_helpers.mlops.trials import SPACE, SweepPlan, finished, is_over, open_study, refused
from medsam_helpers.runs.embed import embed_cases
from medsam_helpers.training.loop import fit

DEV_JITTER_1024 = 20.0  # of the boxes on dev: the same for all trials, whatever they train with


def sweep(folder: str | Path, plan: SweepPlan, workers: int = 2, show_progress: bool = True) -> optuna.Study:
    """The study after a search with several workers. One that was stopped goes on when called again.

    A worker that dies is replaced, two times for each of them, and the trial that it was at is asked for again.

    In `folder` lie the study, the trials and the logs of the workers, which are processes of their own.

    Raises:
        ConfigError: the folder holds another plan's sweep.
        MedsamError: the MLflow server does not answer.
        TrainingError: workers die again and again, with the end of the log of one; or trials are refused, more than
            twice as many as there shall be.
    """
    folder = Path(folder).absolute()
    plan = trials.keep_plan(folder, plan)
    trials.mend_study(folder)
    study = open_study(folder)
    with RunTracker(folder / "mlflow", plan.experiment, folder.name, uri=plan.uri) as run:
        dataset, segmenter, _ = plan.prepare()
        for cases in (views_of(dataset.train, plan.recipe.views), dataset.dev):  # once, for all trials
            embed_cases(segmenter, cases, show_progress)
        run.store_init_configuration({name: value for name, value in asdict(plan).items() if name != "uri"})
        run.log_data(dataset)
        _supervise(folder, plan, study, workers, run.run_id())
        run.log({"best_dev_dice": study.best_value})
    trials.trials_table(study).to_csv(folder / "trials.csv", index=False)
    return study


def _supervise(folder: Path, plan: SweepPlan, study: optuna.Study, workers: int, parent: str) -> None:
    """Keep the workers at work until the study has enough trials."""
    _ask_again(study, set())  # what an earlier call left behind
    # Workers with all threads each would wait for one another at every step.
    environment = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // workers)), **os.environ}
    number, running = 0, dict[int, subprocess.Popen[bytes]]()
    try:
        while running or not is_over(study, plan):
            while len(running) < workers and not is_over(study, plan):
                if number >= 3 * workers:
                    end = (folder / f"worker-{number - 1}.log").read_text(errors="replace")[-800:]
                    raise TrainingError(f"{folder}: {number} workers died; the log of the last ends so:\n{end}")
                command = [sys.executable, "-m", __name__, str(folder), str(number), parent, str(os.getpid())]
                with open(folder / f"worker-{number}.log", "ab") as log:
                    running[number] = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
                number += 1
            wait_until(lambda: any(process.poll() is not None for process in running.values()))
            for ended in [each for each, process in running.items() if process.poll() is not None]:
                del running[ended]
            _ask_again(study, set(running))
    finally:
        for process in running.values():
            process.terminate()
            process.wait()
    if len(finished(study)) < plan.trials:
        raise TrainingError(f"{folder}: training refused {len(refused(study))} trials; the last: {refused(study)[-1]}")


def _ask_again(study: optuna.Study, alive: set[int]) -> None:
    """Mark trials that died with their worker as failed, and queue them with the same values."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        worker = trial.user_attrs.get("worker")
        # A trial that no worker has put its number on may be a live worker's, just drawn.
        if worker not in alive and not (worker is None and alive):
            study.tell(trial.number, state=TrialState.FAIL)
            if len(trial.params) == len(SPACE):
                study.enqueue_trial(trial.params, user_attrs={"again_for": trial.number})


class Pruner(GeneralTracker):
    """Tells Optuna each epoch's dev Dice; a trial not worth its time ends with `optuna.TrialPruned` out of `fit`.

    Where a supervisor's process id is given, and that is the parent no more, `SystemExit` ends the trial at any step.
    """

    name = "optuna"
    requires_logging_directory = False

    def __init__(self, trial: Trial, supervisor: int | None = None) -> None:
        self.tracker, self._supervisor = trial, supervisor  # accelerate's name for what a tracker writes to
        super().__init__()

    def log(self, values: dict, step: int | None = None, **_: Any) -> None:
        """Report the epochs; steps go by, as long as the supervisor lives."""
        if self._supervisor not in (None, os.getppid()):
            sys.exit("the sweep's process is gone")
        if values.get("epoch"):
            self.tracker.report(values["dev_dice"], int(values["epoch"]))
            if self.tracker.should_prune():
                raise optuna.TrialPruned


def _work(folder: Path, worker: int, parent: str, supervisor: int) -> None:
    """Train trials, each a part of the run `parent`, until the study has enough or the supervisor is gone."""
    plan = trials.read_plan(folder)
    dataset, segmenter, store = plan.prepare()

    def dev_dice(trial: Trial) -> float:
        # Named by what it tries: asked for again, a trial finds its own state there.
        values = (f"{value:.3g}" if isinstance(value, float) else str(value) for value in trial.params.values())
        place, name = folder / "trials" / "-".join(values), f"trial {trial.number}"
        with RunTracker(place, plan.experiment, name, uri=plan.uri, hardware_s=0) as run:
            run.set_tags({MLFLOW_PARENT_RUN_ID: parent, "medsam.trial": str(trial.number), "medsam.kind": "trial"})
            cases, model = (dataset.train, dataset.dev), copy.deepcopy(segmenter.model)
            options: dict[str, Any] = {"dev_jitter_1024": DEV_JITTER_1024, "log_with": [run, Pruner(trial, supervisor)]}
            recipe = plan.recipe.but(**trial.params)
            return fit(model, *cases, recipe, store, place, show_progress=False, **options).best_dev_dice

    study = open_study(folder, worker)
    while not is_over(study, plan) and os.getppid() == supervisor:  # orphans stop
        trial = study.ask(SPACE)
        trial.set_user_attr("worker", worker)
        try:
            study.tell(trial, dev_dice(trial))
        except optuna.TrialPruned:
            study.tell(trial, state=TrialState.PRUNED)
        except TrainingError as error:
            trial.set_user_attr(trials.REFUSED, str(error))
            study.tell(trial, state=TrialState.FAIL)
        except Exception:
            study.tell(trial, state=TrialState.FAIL)
            raise


if __name__ == "__main__":
    _work(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
