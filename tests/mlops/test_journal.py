"""The journal and its delivery: whole lines, nothing twice, nothing held up."""

import errno
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from medsam_helpers.errors import DataError, MedsamError
from medsam_helpers.mlops import journal
from medsam_helpers.mlops.journal import Delivery, Journal
from medsam_helpers.mlops.tracking import RunTracker, deliver


@pytest.fixture
def tracker(tmp_path, client):
    """A run in the folder `run`, without samples of the machine."""
    return RunTracker(tmp_path / "run", "journals", uri=client.tracking_uri, hardware_s=0, patience_s=0)


def test_threads_write_whole_lines(tmp_path):
    writer = Journal(tmp_path / "journal-0.jsonl")
    with ThreadPoolExecutor(4) as pool:
        pool.map(lambda step: writer.write("metrics", values={"x": 1.0}, step=step), range(800))
    lines = writer.path.read_text().splitlines()
    assert sorted(json.loads(line)["step"] for line in lines) == list(range(800))


def test_delivering_twice_changes_nothing(tracker, client, tmp_path):
    with tracker:
        tracker.store_init_configuration({"lr": 0.1})
        for step in range(1500):
            tracker.log({"x": step / 7}, step)
        run_id = tracker.run_id()
    (tmp_path / "run" / "sent.json").unlink()  # the note of what was delivered is gone
    assert deliver(tmp_path, client.tracking_uri) == [tmp_path / "run"]
    assert [point.step for point in client.get_metric_history(run_id, "x")] == list(range(1500))


def test_a_run_without_a_server_is_delivered_later_and_deliveries_at_once_make_one_run(client, tmp_path):
    with RunTracker(tmp_path / "run", "at once", uri="http://127.0.0.1:1", hardware_s=0, patience_s=0) as tracker:
        tracker.log({"x": 3}, 1)
        with pytest.raises(MedsamError, match="did not take the run"):
            tracker.run_id(timeout_s=0)
    with pytest.raises(DataError, match="holds no journal of a run"):
        Delivery(tmp_path / "empty", client.tracking_uri)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: deliver(tmp_path, client.tracking_uri), range(4)))
    (run,) = client.search_runs([client.get_experiment_by_name("at once").experiment_id])
    assert (run.info.run_name, run.info.status, run.data.metrics) == ("run", "FINISHED", {"x": 3})


def test_a_run_has_one_process_at_a_time(tracker, tmp_path, client):
    with tracker, pytest.raises(MedsamError, match="another process is at this run"):
        RunTracker(tmp_path / "run", "journals", uri=client.tracking_uri, hardware_s=0, patience_s=0)


def test_a_full_disk_is_called_so(tracker, monkeypatch, caplog):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(journal, "write_text", full)
    with tracker:
        pass
    assert "no room on the disk" in caplog.text
    assert "is away" not in caplog.text


def test_what_the_server_refuses_is_named_and_holds_up_nothing(tracker, client, caplog):
    with tracker:
        tracker.store_init_configuration({"lr": 0.1})
        tracker.store_init_configuration({"lr": 0.2})  # MLflow keeps the first value of a parameter
        for step, name in enumerate(("x", "no such: $name", "x")):  # in one request
            tracker.log({name: step}, step)
        run_id = tracker.run_id()
    for refused in ("MLflow refused", "'lr': '0.2'", "no such: $name"):
        assert refused in caplog.text
    run = client.get_run(run_id)
    assert (run.data.params["lr"], run.data.metrics, run.info.status) == ("0.1", {"x": 2}, "FINISHED")


def test_an_artifact_that_is_missing_is_said_at_once(tracker):
    with tracker, pytest.raises(DataError, match=r"absent\.txt: no such file"):
        tracker.log_artifact("absent.txt")
