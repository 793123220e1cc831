"""The journal and its delivery: whole lines, nothing twice, nothing held up."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from mlflow import MlflowClient

from medsam_helpers.errors import DataError, MedsamError
from medsam_helpers.mlops.journal import Delivery, Journal, read_records
from medsam_helpers.mlops.tracking import RunTracker, deliver


def runs_of(server, experiment):
    client = MlflowClient(server.uri)
    return client.search_runs([client.get_experiment_by_name(experiment).experiment_id])


def test_records_wait_until_their_line_is_whole(tmp_path):
    writer = Journal(tmp_path)
    writer.write("start", key="k")
    with open(writer.path, "a") as file:
        file.write('{"kind": "tags"')
    assert [record["kind"] for record, _ in read_records(writer.path)] == ["start"]
    with pytest.raises(DataError, match="holds no journal of a run"):
        Delivery(tmp_path / "empty", "http://127.0.0.1:1")


def test_threads_write_whole_lines(tmp_path):
    writer = Journal(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        pool.map(lambda step: writer.write("metrics", values={"x": 1.0}, step=step), range(800))
    lines = writer.path.read_text().splitlines()
    assert sorted(json.loads(line)["step"] for line in lines) == list(range(800))


def test_delivering_twice_changes_nothing(tmp_path, mlflow_server):
    with RunTracker(tmp_path / "run", "twice", uri=mlflow_server.uri, hardware_s=0) as tracker:
        tracker.store_init_configuration({"lr": 0.1})
        for step in range(1500):
            tracker.log({"x": step / 7}, step)
    (tmp_path / "run" / "sent.json").unlink()  # the note of what was delivered is gone
    assert deliver(tmp_path, mlflow_server.uri) == [tmp_path / "run"]
    (run,) = runs_of(mlflow_server, "twice")
    points = MlflowClient(mlflow_server.uri).get_metric_history(run.info.run_id, "x")
    assert [point.step for point in points] == list(range(1500))


def test_what_the_server_refuses_is_named_and_holds_up_nothing(tmp_path, mlflow_server, caplog):
    with RunTracker(tmp_path / "run", "refused", uri=mlflow_server.uri, hardware_s=0) as tracker:
        tracker.store_init_configuration({"lr": 0.1})
        tracker.store_init_configuration({"lr": 0.2})  # MLflow keeps the first value of a parameter
        tracker.log({"x": 1}, 1)
        tracker.log({"no such: $name": 2}, 2)  # in one request with its neighbours
        tracker.log({"x": 3}, 3)
        run_id = tracker.run_id()
    assert "MLflow refused" in caplog.text
    assert "'lr': '0.2'" in caplog.text
    assert "no such: $name" in caplog.text
    run = MlflowClient(mlflow_server.uri).get_run(run_id)
    assert (run.data.params["lr"], run.data.metrics, run.info.status) == ("0.1", {"x": 3}, "FINISHED")


def test_artifacts_go_along_and_a_missing_one_is_said_at_once(tmp_path, mlflow_server):
    with RunTracker(tmp_path / "run", "artifacts", uri=mlflow_server.uri, hardware_s=0) as tracker:
        (tmp_path / "run" / "model").mkdir()
        (tmp_path / "run" / "model" / "weights.bin").write_bytes(bytes(range(256)))
        tracker.log_artifact("model", "checkpoint")
        with pytest.raises(DataError, match=r"absent\.txt: no such file"):
            tracker.log_artifact("absent.txt")
        run_id = tracker.run_id()
    loaded = MlflowClient(mlflow_server.uri).download_artifacts(run_id, "checkpoint/weights.bin", str(tmp_path))
    with open(loaded, "rb") as file:
        assert file.read() == bytes(range(256))


def test_a_run_without_a_server_is_delivered_later_and_its_part_waits_for_it(tmp_path, mlflow_server):
    options = {"hardware_s": 0, "patience_s": 0}
    with RunTracker(tmp_path / "whole", "nested", uri="http://127.0.0.1:1", **options) as whole:
        whole.log({"x": 3}, 1)
        with pytest.raises(MedsamError, match="did not take the run"):
            whole.run_id(timeout_s=0)
    with RunTracker(tmp_path / "part", "nested", parent=whole.key, uri=mlflow_server.uri, **options):
        pass
    for name in ("whole", "part"):
        assert deliver(tmp_path / name, mlflow_server.uri) == [tmp_path / name]
    by_name = {run.info.run_name: run for run in runs_of(mlflow_server, "nested")}
    assert (by_name["whole"].info.status, by_name["whole"].data.metrics) == ("FINISHED", {"x": 3})
    assert by_name["part"].data.tags["mlflow.parentRunId"] == by_name["whole"].info.run_id
