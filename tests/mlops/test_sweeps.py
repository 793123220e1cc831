"""Sweeps: two workers share a study, none of its trials gets lost, and each is a run inside the sweep's run."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import optuna
import pandas as pd
import psutil
import pytest
from optuna.trial import TrialState

from medsam_helpers.errors import ConfigError, TrainingError
from medsam_helpers.mlops import sweeps
from medsam_helpers.mlops.server import wait_until
from medsam_helpers.mlops.sweeps import Pruner, sweep
from medsam_helpers.mlops.trials import SPACE, SweepPlan, finished, keep_plan, open_study, trials_table
from medsam_helpers.runs.embed import embed_cases
from medsam_helpers.training.state import STATE_FILE


@pytest.fixture
def plan(place, mlflow_server):
    """A plan on discs and a tiny model: real worker processes."""
    return SweepPlan(str(place / "tiny"), str(place / "data"), epochs=2, trials=6, uri=mlflow_server.uri)


def test_two_workers_lose_no_trial_though_one_is_killed(plan, tmp_path, client):
    folder = tmp_path / "sweep"

    def workers():
        return [p for p in psutil.Process().children() if "medsam_helpers.mlops.sweeps" in p.cmdline()]

    def kill_a_worker():
        assert wait_until(lambda: len(list(folder.glob(f"trials/*/{STATE_FILE}"))) >= 2 and len(workers()) == 2)
        workers()[0].kill()

    with ThreadPoolExecutor() as pool:
        killed = pool.submit(kill_a_worker)
        study = sweep(folder, plan, workers=2, show_progress=False)
    killed.result()
    assert len(finished(study)) >= plan.trials
    assert not study.get_trials(states=(TrialState.RUNNING,))
    failed = study.get_trials(states=(TrialState.FAIL,))
    again = [trial for trial in study.trials if "again_for" in trial.user_attrs]
    # One that died before it had drawn its values has none to be asked for again.
    drawn = {trial.number for trial in failed if len(trial.params) == len(SPACE)}
    assert {trial.user_attrs["again_for"] for trial in again} == drawn
    assert all(trial.params == study.trials[trial.user_attrs["again_for"]].params for trial in again)

    runs = client.search_runs([client.get_experiment_by_name(plan.experiment).experiment_id])
    (whole,) = [run for run in runs if run.info.run_name == "sweep"]
    parts = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == whole.info.run_id]
    numbers = {int(run.data.tags["medsam.trial"]) for run in parts if "medsam.trial" in run.data.tags}
    assert {trial.number for trial in finished(study)} <= numbers
    assert whole.data.metrics["best_dev_dice"] == pytest.approx(study.best_value)
    assert {used.dataset.name for used in whole.inputs.dataset_inputs} == {"data/train", "data/dev"}
    table = pd.read_csv(folder / "trials.csv")
    assert table["dev_dice"].max() == table["dev_dice"][0] == pytest.approx(study.best_value)


def test_a_sweep_that_was_stopped_goes_on_and_another_plan_is_refused(plan, tmp_path, client):
    small = replace(plan, trials=1)
    dataset, segmenter, _ = keep_plan(tmp_path / "sweep", small).prepare()
    for cases in (dataset.train, dataset.dev):
        embed_cases(segmenter, cases, show_progress=False)
    sweeps._work(tmp_path / "sweep", 0, client.create_run("0").info.run_id, os.getppid())
    (first,) = finished(open_study(tmp_path / "sweep"))
    more = sweep(tmp_path / "sweep", replace(small, trials=2), workers=1, show_progress=False)
    assert more.trials[0].value == first.value
    assert len(finished(more)) == 2
    assert json.loads((tmp_path / "sweep" / "plan.json").read_text())["precision"] != "auto", "decided for all workers"
    with pytest.raises(ConfigError, match="another plan"):
        sweep(tmp_path / "sweep", replace(small, epochs=3), workers=1)
    (tmp_path / "sweep" / "plan.json").write_text('{"model": "mobile-sam", "an_old_field": 1}')
    with pytest.raises(ConfigError, match=r"plan\.json: no plan of this version .*an_old_field"):
        sweep(tmp_path / "sweep", small, workers=1)


def test_workers_that_die_again_and_again_end_the_sweep_with_their_log(plan, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONHASHSEED", "nonsense")  # no Python starts with it
    with pytest.raises(TrainingError, match=r"3 workers died; the log of the last ends so:[\s\S]*PYTHONHASHSEED"):
        sweep(tmp_path / "sweep", plan, workers=1, show_progress=False)


def test_workers_stop_when_their_sweep_is_killed(plan, tmp_path):
    folder = tmp_path / "sweep"
    code = "import sys; from pathlib import Path; from medsam_helpers.mlops import sweeps, trials; "
    code += "folder = Path(sys.argv[1]); sweeps.sweep(folder, trials.read_plan(folder), 1, False)"
    keep_plan(folder, replace(plan, epochs=100_000, trials=1))
    with subprocess.Popen([sys.executable, "-c", code, folder]) as launcher:
        assert wait_until(lambda: list(folder.glob(f"trials/*/{STATE_FILE}")))
        (worker,) = psutil.Process(launcher.pid).children()
        launcher.kill()
    assert wait_until(lambda: not worker.is_running(), 60)


def test_no_worker_ends_with_a_refused_trial_and_a_sweep_of_such_alone_says_why(plan, tmp_path, monkeypatch, client):
    plan = keep_plan(tmp_path, replace(plan, trials=2))
    monkeypatch.setattr(sweeps, "fit", lambda *_, **__: (_ for _ in ()).throw(TrainingError("the loss is nan")))
    parent = client.create_run("0").info.run_id
    sweeps._work(tmp_path, 0, parent, os.getppid())
    assert list(trials_table(open_study(tmp_path))["failed"]) == ["the loss is nan"] * 4
    with pytest.raises(TrainingError, match="training refused 4 trials; the last: the loss is nan"):
        sweeps._supervise(tmp_path, plan, open_study(tmp_path), 2, parent)


def test_a_trial_far_below_the_others_is_pruned_and_a_good_one_is_not():
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.MedianPruner(n_startup_trials=1))

    def run(scores):
        trial = study.ask()
        pruner = Pruner(trial)
        for epoch, score in enumerate(scores):
            pruner.log({"step_loss": 1.0}, step=99)
            pruner.log({"dev_dice": score, "epoch": epoch}, step=epoch * 7)
        study.tell(trial, scores[-1])

    for scores in ([0.5, 0.7, 0.8], [0.5, 0.7, 0.8], [0.5, 0.9, 0.9]):
        run(scores)
    with pytest.raises(optuna.TrialPruned):
        run([0.9, 0.6, 0.9])
    assert study.trials[-1].intermediate_values == {1: 0.6}, "the zero-shot model's score prunes nothing"
