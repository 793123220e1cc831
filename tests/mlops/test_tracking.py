"""Tracking: a real server gets all that a run tells; where it is killed the run goes on, and nothing is lost."""

import json
import signal
import subprocess
import sys

import numpy as np
import pytest
from helpers import draw_discs, embedded, make_tiny_sam

from medsam_helpers.data.case import Dataset
from medsam_helpers.mlops.server import wait_until
from medsam_helpers.mlops.tracking import RunTracker, deliver
from medsam_helpers.training.loop import fit
from medsam_helpers.training.recipes import Recipe

RECIPE = Recipe(name="test", lr=1e-3, epochs=3, batch=2, precision="fp32")
DISCS = draw_discs(10)
DATA = Dataset("discs", DISCS[:5], DISCS[5:8], DISCS[8:], licence="nobody's", citation="none")


@pytest.fixture
def curve(client):
    """Steps and values of a metric, as the server has them."""
    return lambda run_id, name: [(point.step, point.value) for point in client.get_metric_history(run_id, name)]


def train(folder, tracker):
    """The history of a tiny model, trained on `DATA`."""
    model, options = make_tiny_sam(), {"log_with": tracker, "show_progress": False}
    store = embedded(model, DISCS, folder / "embeddings").store
    return fit(model, DATA.train, DATA.dev, RECIPE, store, folder, **options).history


def test_a_run_tells_its_curves_recipe_versions_and_commit(tmp_path, client, curve):
    with RunTracker(tmp_path / "run", "curves", uri=client.tracking_uri) as tracker:
        history = train(tmp_path / "run", tracker)
        run_id = tracker.run_id()
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {name: str(value) for name, value in RECIPE.as_dict().items()}
    assert run.data.tags["version.torch"]
    assert len(run.data.tags["medsam.commit"].removesuffix("+dirty")) == 40

    # 5 cases, 2 a batch: 3 steps an epoch; both axes count steps.
    steps, losses = zip(*curve(run_id, "step_loss"), strict=True)
    assert steps == tuple(range(1, 10))
    means = np.reshape(losses, (3, 3)).mean(axis=1)
    assert means == pytest.approx(history["loss"][1:].to_numpy(), rel=1e-5), "an epoch's loss is the mean of its steps'"
    assert curve(run_id, "dev_dice") == [(3 * e, pytest.approx(d)) for e, d in enumerate(history["dev_dice"])]
    assert curve(run_id, "loss") == [(3 * e, pytest.approx(history["loss"][e])) for e in (1, 2, 3)]
    assert curve(run_id, "step_lr")[-1][1] == pytest.approx(history["lr"].iloc[-1])
    assert curve(run_id, "system/process_0_memory_usage_megabytes"), "at least the sample of the end"


def test_another_tracker_is_one_word(tmp_path, monkeypatch, capfd):
    """W&B without an account or a network writes a file; in it are the curves, each of its steps in order."""
    for name, value in {"MODE": "offline", "DIR": str(tmp_path), "SILENT": "true"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    train(tmp_path / "run", "wandb")
    assert "less than" not in capfd.readouterr().err, "W&B drops a step that comes after a later one"
    (written,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    curves = {b"step_loss": 9, b"dev_iou": 4}  # W&B's own process may close the file after `finish` came back
    assert wait_until(lambda: all(written.read_bytes().count(name) >= count for name, count in curves.items()))


def test_the_server_killed_in_the_middle_of_a_run_loses_nothing(tmp_path, mlflow_server, client, curve):
    options = {"uri": mlflow_server.uri, "hardware_s": 0, "patience_s": 0}
    try:
        with RunTracker(tmp_path / "run", "killed", **options) as tracker:
            for step in range(10):
                if step == 5:
                    run_id = tracker.run_id()
                    mlflow_server.stop(force=True)
                tracker.log({"loss": 1 / (1 + step)}, step)
    finally:
        mlflow_server.start()
    assert client.get_run(run_id).info.status == "RUNNING", "the server knows no more than what it got"
    assert [step for step, _ in curve(run_id, "loss")] == list(range(5))

    assert deliver(tmp_path, mlflow_server.uri) == [tmp_path / "run"]
    assert deliver(tmp_path, mlflow_server.uri) == [], "all was delivered"
    assert curve(run_id, "loss") == [(step, 1 / (1 + step)) for step in range(10)]
    after = client.get_run(run_id)
    ended = json.loads((tmp_path / "run" / "journal-0.jsonl").read_text().splitlines()[-1])
    assert (after.info.status, after.info.end_time) == ("FINISHED", ended["time"]), "when it ended, not when we knew"


SCRIPT = """
import os, signal, sys
from medsam_helpers.mlops.tracking import RunTracker
tracker = RunTracker(sys.argv[1], "dies", uri=sys.argv[2], hardware_s=0)
assert "IPython" in sys.modules, "or the delivery's thread imports it, and a figure saved meanwhile fails"
for step in range(200):
    tracker.log({"x": step}, step)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_that_is_killed_has_written_all_it_logged(tmp_path, client, curve):
    killed = subprocess.run([sys.executable, "-c", SCRIPT, tmp_path / "run", client.tracking_uri], check=False)
    assert killed.returncode == -signal.SIGKILL
    with open(tmp_path / "run" / "journal-0.jsonl", "a") as file:
        file.write('{"kind": "metrics", "ti')  # as a kill in the middle of a line would leave it
    assert deliver(tmp_path, client.tracking_uri) == [tmp_path / "run"]
    (run,) = client.search_runs([client.get_experiment_by_name("dies").experiment_id])
    wrote = [json.loads(line)["time"] for line in (tmp_path / "run" / "journal-0.jsonl").read_text().splitlines()[:201]]
    assert (run.info.status, run.info.end_time) == ("KILLED", wrote[-1]), "when it was last heard of"
    with RunTracker(tmp_path / "run", "dies", uri=client.tracking_uri, hardware_s=0) as tracker:
        tracker.log({"x": 200}, 200)
        deliver(tmp_path, client.tracking_uri)
        assert client.get_run(tracker.run_id()).info.status == "RUNNING", "it lives"
    runs = client.search_runs([client.get_experiment_by_name("dies").experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"], "it went on with the run that was there"
    assert curve(runs[0].info.run_id, "x") == [(i, float(i)) for i in range(201)]


@pytest.mark.parametrize(("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_run_says_how_it_ended(tmp_path, client, error, status):
    tracker = RunTracker(tmp_path / "run", "ends", uri=client.tracking_uri, hardware_s=0)
    run_id = tracker.run_id()
    with pytest.raises(error), tracker:
        raise error
    assert client.get_run(run_id).info.status == status
