"""Tracking: a real server gets all that a run tells; where it is killed the run goes on, and nothing is lost."""

import copy
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pynvml
import pytest
from helpers import draw_discs, make_tiny_sam
from mlflow import MlflowClient

from medsam_helpers.data.case import Case, Cases, Dataset
from medsam_helpers.errors import DataError, MedsamError
from medsam_helpers.mlops import hardware, journal
from medsam_helpers.mlops.journal import Delivery, Journal
from medsam_helpers.mlops.lineage import datasets_of, runs_using, split_digest
from medsam_helpers.mlops.server import Server, ServerError, free_port, webhook_key
from medsam_helpers.mlops.tracking import RunTracker, deliver
from medsam_helpers.runs.finetune import embed_cases
from medsam_helpers.sam.embeddings import EmbeddingStore
from medsam_helpers.sam.segmenter import Segmenter
from medsam_helpers.training.loop import fit
from medsam_helpers.training.recipes import Recipe

RECIPE = Recipe("test", "", lr=1e-3, epochs=3, batch=2, precision="fp32")


TESTS = Path(__file__).parent


@pytest.fixture
def setting(tmp_path):
    return make_setting(tmp_path)


def make_setting(root):
    """A tiny model, a data set of 5 training, 3 dev and 2 val cases, and their embeddings."""
    model, cases = make_tiny_sam(), draw_discs(10)
    segmenter = Segmenter(model, "cpu", precision="fp32")
    segmenter.store = EmbeddingStore.for_model(segmenter.info, "fp32", root / "embeddings")
    embed_cases(segmenter, cases, show_progress=False)
    dataset = Dataset("discs", cases[:5], cases[5:8], cases[8:], licence="nobody's", citation="none")
    return model, dataset, segmenter.store


def train(setting, folder, tracker, recipe=RECIPE):
    model, dataset, store = setting
    return fit(
        copy.deepcopy(model), dataset.train, dataset.dev, recipe, store, folder, log_with=tracker, show_progress=False
    )


def curve(client, run_id, name):
    return [(point.step, point.value) for point in client.get_metric_history(run_id, name)]


def test_a_run_tells_its_curves_recipe_versions_and_commit(setting, tmp_path, mlflow_server):
    with RunTracker(tmp_path / "run", "curves", uri=mlflow_server.uri, hardware_s=0.2) as tracker:
        tracker.log_data(setting[1])
        result = train(setting, tmp_path / "run", tracker)
        run_id = tracker.run_id()
    client = MlflowClient(mlflow_server.uri)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {name: str(value) for name, value in RECIPE.as_dict().items()}
    assert run.data.tags["version.torch"]
    assert len(run.data.tags["medsam.commit"].removesuffix("+dirty")) == 40

    history = result.history
    # 5 cases, 2 a batch: 3 steps an epoch; both axes count steps.
    assert [step for step, _ in curve(client, run_id, "step_loss")] == list(range(1, 10))
    assert curve(client, run_id, "dev_dice") == [(3 * e, pytest.approx(d)) for e, d in enumerate(history["dev_dice"])]
    assert curve(client, run_id, "loss") == [(3 * e, pytest.approx(history["loss"][e])) for e in (1, 2, 3)]
    means = np.reshape([value for _, value in curve(client, run_id, "step_loss")], (3, 3)).mean(axis=1)
    assert means == pytest.approx(history["loss"][1:].to_numpy(), rel=1e-5), "an epoch's loss is the mean of its steps'"
    assert [value for _, value in curve(client, run_id, "step_lr")][-1] == pytest.approx(history["lr"].iloc[-1])
    for (_, dice), (_, iou) in zip(curve(client, run_id, "dev_dice"), curve(client, run_id, "dev_iou"), strict=True):
        assert dice / 2 <= iou <= dice / (2 - dice) + 0.1

    hardware_points = curve(client, run_id, "system/process_0_memory_usage_megabytes")
    assert len(hardware_points) >= 2
    assert all(50 < megabytes < 50_000 for _, megabytes in hardware_points)
    used = datasets_of(run)
    assert {purpose: about["cases"] for purpose, about in used.items()} == {"train": 5, "dev": 3, "val": 2}
    assert {about["licence"] for about in used.values()} == {"nobody's"}
    assert used["train"]["digest"] == split_digest(setting[1].train)


WANDB = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], str(Path(sys.argv[1]).parent)]
import pytest
from test_tracking import make_setting, train
root = Path(sys.argv[2])
train(make_setting(root), root / "run", "wandb")
"""


def test_another_tracker_is_one_word(tmp_path):
    """W&B without an account or a network writes a file; in it are the curves, each of its steps in order."""
    offline = {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true"}
    done = subprocess.run(
        [sys.executable, "-c", WANDB, str(TESTS), str(tmp_path)],
        env={**os.environ, **offline},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "less than" not in done.stderr, "W&B drops a step that comes after a later one"
    (written,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    content = written.read_bytes()
    counts = {name: content.count(name) for name in (b"step_loss", b"dev_iou")}
    assert counts[b"step_loss"] >= 9
    assert counts[b"dev_iou"] >= 4


def test_one_pixel_changes_the_digest_and_so_which_runs_are_found(tmp_path, mlflow_server):
    cases = draw_discs(4, seed=1)
    dataset = Dataset("discs", cases[:1], cases[1:2], cases[2:], licence="nobody's", citation="none")
    with RunTracker(tmp_path / "run", "pixels", uri=mlflow_server.uri, hardware_s=0) as tracker:
        tracker.log_data(dataset)
        run_id = tracker.run_id()
    client = MlflowClient(mlflow_server.uri)
    assert [run.info.run_id for run in runs_using(client, dataset.val)] == [run_id]

    def altered(name):
        case = dataset.val[dataset.val.names.index(name)]
        image = case.image.copy()
        image[-1, -1, 2] ^= 1
        return Case(name, image, case.mask) if name == dataset.val.names[-1] else case

    other = Cases(dataset.val.names, altered)
    assert split_digest(other) != split_digest(dataset.val)
    assert runs_using(client, other) == []


def test_the_server_killed_in_the_middle_of_a_run_loses_nothing(setting, tmp_path):
    server = Server(tmp_path / "server").start()
    folder, killed = tmp_path / "run", []

    class KillAtStep5(RunTracker):
        def log(self, values, step=None, **rest):
            if step == 5 and not killed:
                killed.append(self.run_id())
                server.stop(force=True)
            super().log(values, step, **rest)

    try:
        with KillAtStep5(folder, "killed", uri=server.uri, hardware_s=0, patience_s=0.5) as tracker:
            tracker.log_data(setting[1])
            began = time.monotonic()
            result = train(setting, folder, tracker)
            assert time.monotonic() - began < 60, "training does not wait for a server that is gone"
        assert killed
        assert len(result.history) == 4, "training went on to its end"

        server.start()
        client = MlflowClient(server.uri)
        before = client.get_run(killed[0])
        assert before.info.status == "RUNNING", "the server knows no more than what it got"
        assert len(curve(client, killed[0], "step_loss")) < 9

        assert deliver(tmp_path, server.uri) == [folder]
        assert deliver(tmp_path, server.uri) == [], "all was delivered"
        assert [step for step, _ in curve(client, killed[0], "step_loss")] == list(range(1, 10))
        assert [step for step, _ in curve(client, killed[0], "dev_dice")] == [0, 3, 6, 9]
        after = client.get_run(killed[0])
        assert after.info.status == "FINISHED"
        ended = json.loads((folder / "journal-0.jsonl").read_text().splitlines()[-1])
        assert after.info.end_time == ended["time"], "when the run ended, not when that was delivered"
    finally:
        server.stop()


def test_a_run_that_begins_without_a_server_is_delivered_whole_later(setting, tmp_path, mlflow_server):
    nowhere = f"http://127.0.0.1:{free_port()}"
    with RunTracker(tmp_path / "run", "late", uri=nowhere, hardware_s=0, patience_s=0) as tracker:
        train(setting, tmp_path / "run", tracker)
        with pytest.raises(MedsamError, match="did not take the run"):
            tracker.run_id(timeout_s=0)
    assert deliver(tmp_path, mlflow_server.uri) == [tmp_path / "run"]
    (run,) = MlflowClient(mlflow_server.uri).search_runs([_experiment(mlflow_server, "late")])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["epoch"] == 3


def _experiment(server, name):
    return MlflowClient(server.uri).get_experiment_by_name(name).experiment_id


SCRIPT = """
import os, signal, sys
from pathlib import Path
from medsam_helpers.mlops.tracking import RunTracker
tracker = RunTracker(Path(sys.argv[1]), "dies", uri=sys.argv[2], hardware_s=0)
for step in range(200):
    tracker.log({"x": step}, step)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_that_is_killed_has_written_all_it_logged(tmp_path, mlflow_server):
    killed = subprocess.run([sys.executable, "-c", SCRIPT, tmp_path / "run", mlflow_server.uri], check=False)
    assert killed.returncode == -signal.SIGKILL
    with open(tmp_path / "run" / "journal-0.jsonl", "a") as file:
        file.write('{"kind": "metrics", "ti')  # as a kill in the middle of a line would leave it
    with RunTracker(tmp_path / "run", "dies", uri=mlflow_server.uri, hardware_s=0) as tracker:
        tracker.log({"x": 200}, 200)
    runs = MlflowClient(mlflow_server.uri).search_runs([_experiment(mlflow_server, "dies")])
    assert [run.info.status for run in runs] == ["FINISHED"], "it went on with the run that was there"
    assert curve(MlflowClient(mlflow_server.uri), runs[0].info.run_id, "x") == [(i, float(i)) for i in range(201)]


def test_delivering_twice_changes_nothing(tmp_path, mlflow_server):
    with RunTracker(tmp_path / "run", "twice", uri=mlflow_server.uri, hardware_s=0) as tracker:
        tracker.store_init_configuration({"lr": 0.1})
        for step in range(1500):
            tracker.log({"x": step / 7}, step)
    (tmp_path / "run" / "sent.json").unlink()  # the note of what was delivered is gone
    assert deliver(tmp_path, mlflow_server.uri) == [tmp_path / "run"]
    (run,) = MlflowClient(mlflow_server.uri).search_runs([_experiment(mlflow_server, "twice")])
    assert len(curve(MlflowClient(mlflow_server.uri), run.info.run_id, "x")) == 1500


def test_what_the_server_refuses_is_named_and_holds_up_nothing(tmp_path, mlflow_server, caplog):
    with RunTracker(tmp_path / "run", "refused", uri=mlflow_server.uri, hardware_s=0) as tracker:
        tracker.store_init_configuration({"lr": 0.1})
        tracker.store_init_configuration({"lr": 0.2})  # MLflow keeps the first value of a parameter
        tracker.log({"x": 1}, 1)
        run_id = tracker.run_id()
    assert "MLflow refused" in caplog.text
    assert "'lr': '0.2'" in caplog.text
    run = MlflowClient(mlflow_server.uri).get_run(run_id)
    assert (run.data.params["lr"], run.data.metrics["x"], run.info.status) == ("0.1", 1, "FINISHED")


@pytest.mark.parametrize(("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_run_says_how_it_ended(tmp_path, mlflow_server, error, status):
    def run():
        with RunTracker(tmp_path / "run", "ends", uri=mlflow_server.uri, hardware_s=0) as tracker:
            found.append(tracker.run_id())
            raise error

    found = []
    with pytest.raises(error):
        run()
    assert MlflowClient(mlflow_server.uri).get_run(found[0]).info.status == status


def test_artifacts_go_along_and_a_missing_one_is_said_at_once(tmp_path, mlflow_server):
    with RunTracker(tmp_path / "run", "artifacts", uri=mlflow_server.uri, hardware_s=0) as tracker:
        (tmp_path / "run" / "model").mkdir()
        (tmp_path / "run" / "model" / "weights.bin").write_bytes(bytes(range(256)))
        tracker.log_artifact("model", "checkpoint")
        with pytest.raises(DataError, match=r"absent\.txt: no such file"):
            tracker.log_artifact("absent.txt")
        run_id = tracker.run_id()
    client = MlflowClient(mlflow_server.uri)
    loaded = client.download_artifacts(run_id, "checkpoint/weights.bin", str(tmp_path))
    with open(loaded, "rb") as file:
        assert file.read() == bytes(range(256))


def test_a_part_waits_for_its_whole(tmp_path, mlflow_server):
    nowhere = f"http://127.0.0.1:{free_port()}"
    with RunTracker(tmp_path / "whole", "nested", uri=nowhere, hardware_s=0, patience_s=0) as whole:
        pass
    with RunTracker(
        tmp_path / "part", "nested", uri=mlflow_server.uri, parent=whole, hardware_s=0, patience_s=1
    ) as part:
        assert part.key != whole.key
    deliver(tmp_path / "whole", mlflow_server.uri)
    deliver(tmp_path / "part", mlflow_server.uri)
    runs = MlflowClient(mlflow_server.uri).search_runs([_experiment(mlflow_server, "nested")])
    by_name = {run.info.run_name: run for run in runs}
    assert by_name["part"].data.tags["mlflow.parentRunId"] == by_name["whole"].info.run_id


def processes_at(port):
    return [child for child in psutil.Process().children(recursive=True) if str(port) in child.cmdline()]


def test_the_server_keeps_its_data_over_a_restart_at_another_port(tmp_path):
    with Server(tmp_path / "server") as server:
        MlflowClient(server.uri).create_experiment("kept")
        with pytest.raises(ServerError, match=f"port {server.port} is taken"):
            Server(tmp_path / "other", server.port).start()
        assert processes_at(server.port)
    assert not processes_at(server.port), "no worker stays behind"
    key = webhook_key(tmp_path / "server")
    with Server(tmp_path / "server") as again:
        assert MlflowClient(again.uri).get_experiment_by_name("kept")
    assert webhook_key(tmp_path / "server") == key
    assert oct((tmp_path / "server" / "webhook.key").stat().st_mode)[-3:] == "600"


def test_telemetry_is_off_in_server_and_client(tmp_path):
    assert Server(tmp_path).environment()["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == os.environ["DO_NOT_TRACK"] == "true"


def test_records_wait_until_their_line_is_whole(tmp_path):
    writer = Journal(tmp_path)
    writer.write("start", key="k")
    with open(writer.path, "a") as file:
        file.write('{"kind": "tags"')
    assert [record["kind"] for record, _ in journal._read(writer.path, 0)] == ["start"]
    with pytest.raises(DataError, match="holds no journal of a run"):
        Delivery(tmp_path / "empty", "http://127.0.0.1:1")


def test_threads_write_whole_lines(tmp_path):
    writer = Journal(tmp_path)
    threads = [
        threading.Thread(target=lambda: [writer.write("metrics", values={"x": 1.0}, step=i) for i in range(200)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = writer.path.read_text().splitlines()
    assert len(lines) == 800
    assert sum(json.loads(line)["step"] for line in lines) == 4 * sum(range(200))


def test_the_process_is_seen_to_work():
    process = psutil.Process()
    hardware.sample(process, [])
    deadline = time.monotonic() + 0.3
    while time.monotonic() < deadline:
        sum(range(1000))
    busy = hardware.sample(process, [], process_number=3)
    assert busy["system/process_3_cpu_utilization_percentage"] > 10
    assert "system/cpu_utilization_percentage" not in busy, "the machine is told of by process 0 alone"


def test_gpus_are_what_the_driver_says():
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError:
        count = 0
    handles = hardware.gpu_handles()
    assert len(handles) == count
    for handle in handles:
        assert {"memory_usage_megabytes", "utilization_percentage"} <= hardware.gpu_sample(handle, os.getpid()).keys()
