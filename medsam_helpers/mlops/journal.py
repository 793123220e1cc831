"""The journal of a run: everything is written to a file first, and delivered to MLflow from there.

Training never waits for the server and never dies of it: what the server misses stays in the journal and is delivered
later, by the same process or by another. Delivering twice changes nothing: MLflow keeps equal points of a metric once.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from medsam_helpers.errors import DataError
from medsam_helpers.files import atomic_write

_LOG = logging.getLogger(__name__)
KEY_TAG = "medsam.key"
_MAIN, _SENT = "journal-0.jsonl", "sent.json"
_MOST_METRICS = 1000  # in one request, MLflow's limit

Record = dict[str, Any]


class Journal:
    """An append-only file of JSON lines, one a record, each on disk before `write` returns.

    Args:
        folder: of the run; each process of a distributed run has its own file in it.
        process: its number.
    """

    def __init__(self, folder: Path, process: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"journal-{process}.jsonl"
        self._lock = threading.Lock()
        torn = self.path.exists() and not self.path.read_bytes().endswith(b"\n")
        self._file = self.path.open("a", encoding="utf-8")
        if torn and self.path.stat().st_size:  # a process that was killed left half a line
            self._file.write("\n")

    def write(self, kind: str, **content: Any) -> None:
        """Append a record with the time, in milliseconds since 1970."""
        line = json.dumps({"kind": kind, "time": round(time.time() * 1000), **content})
        with self._lock:
            self._file.write(line + "\n")
            self._file.flush()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def start_record(folder: Path) -> Record | None:
    """The record that says which run this folder holds; None where none was begun."""
    path = folder / _MAIN
    records = _read(path, 0) if path.exists() else iter(())
    return next((record for record, _ in records if record["kind"] == "start"), None)


def begin(journal: Journal, experiment: str, name: str, tags: dict[str, str], parent: str | None) -> str:
    """Write the first record of a run; gives the key by which the run is known before it has an id.

    Args:
        journal: of process 0.
        experiment: of MLflow, made when the run is delivered.
        name: of the run.
        tags: of the run.
        parent: key of the run that this one is a part of.
    """
    key = uuid.uuid4().hex
    journal.write("start", key=key, experiment=experiment, name=name, tags=tags, parent=parent)
    return key


class Delivery:
    """Takes the records of a run's folder to MLflow, from where it stopped the last time.

    Args:
        folder: with the journals.
        uri: of the server.
    Raises:
        DataError: there is no run in the folder.
    """

    def __init__(self, folder: Path, uri: str) -> None:
        self.folder, self.client = folder, MlflowClient(uri)
        start = start_record(folder)
        if start is None:
            raise DataError(f"{folder}: holds no journal of a run")
        self.start: Record = start
        path = folder / _SENT
        known = json.loads(path.read_text()) if path.exists() else {}
        # Of another server (a fresh one, say) everything is told anew.
        known = known if known.get("uri") == uri and self._exists(known.get("run_id")) else {}
        self.run_id: str | None = known.get("run_id")
        self._places: dict[str, int] = known.get("places", {})
        self._uri = uri

    def waiting(self) -> int:
        """Bytes that were not delivered yet."""
        return sum(path.stat().st_size - self._places.get(path.name, 0) for path in self._journals())

    def send(self) -> None:
        """Deliver all that is there now.

        Raises:
            MlflowException: the server does not answer, or refuses; what was delivered is noted.
        """
        if self.run_id is None:
            self.run_id = self._find_or_create_run()
        for path in self._journals():
            for records, place in _groups(_read(path, self._places.get(path.name, 0))):
                try:
                    self._deliver(records)
                except MlflowException as error:
                    if error.error_code != "INVALID_PARAMETER_VALUE":
                        raise
                    # Asking again would get the same answer, and hold up all that comes after it.
                    _LOG.error("%s: MLflow refused %s: %s", path, records[0], error.message)
                self._places[path.name] = place
                self._note()

    def _journals(self) -> list[Path]:
        # The main journal last: its end closes the run.
        return sorted(self.folder.glob("journal-*.jsonl"), key=lambda path: path.name == _MAIN)

    def _note(self) -> None:
        with atomic_write(self.folder / _SENT) as temporary:
            temporary.write_text(json.dumps({"uri": self._uri, "run_id": self.run_id, "places": self._places}))

    def _exists(self, run_id: str | None) -> bool:
        if run_id is None:
            return False
        try:
            self.client.get_run(run_id)
        except MlflowException as error:
            return error.error_code != "RESOURCE_DOES_NOT_EXIST"  # a server that is away forgets nothing
        return True

    def _find_or_create_run(self) -> str:
        experiment = self.client.get_experiment_by_name(self.start["experiment"])
        number = experiment.experiment_id if experiment else self.client.create_experiment(self.start["experiment"])
        if found := self._run_of(number, self.start["key"]):  # an earlier delivery was killed after it made the run
            return found
        tags = self.start["tags"] | {KEY_TAG: self.start["key"]}
        if self.start["parent"]:
            parent = self._run_of(number, self.start["parent"])
            if parent is None:
                raise MlflowException("the run that this one is a part of has not arrived yet")
            tags[MLFLOW_PARENT_RUN_ID] = parent
        run = self.client.create_run(number, start_time=self.start["time"], tags=tags, run_name=self.start["name"])
        return run.info.run_id

    def _run_of(self, experiment_id: str, key: str) -> str | None:
        found = self.client.search_runs([experiment_id], f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
        return found[0].info.run_id if found else None

    def _deliver(self, records: list[Record]) -> None:
        first, run_id = records[0], self.run_id
        if first["kind"] == "metrics":
            points = [
                Metric(name, value, record["time"], record["step"])
                for record in records
                for name, value in record["values"].items()
            ]
            self.client.log_batch(run_id, metrics=points)
        elif first["kind"] == "params":
            self.client.log_batch(run_id, params=[Param(k, v) for k, v in first["values"].items()])
        elif first["kind"] == "tags":
            self.client.log_batch(run_id, tags=[RunTag(k, v) for k, v in first["values"].items()])
        elif first["kind"] == "dataset":
            data = DatasetInput(Dataset(**first["dataset"]), [InputTag(k, v) for k, v in first["tags"].items()])
            self.client.log_inputs(run_id, datasets=[data])
        elif first["kind"] == "artifact":
            path = self.folder / first["path"]
            log = self.client.log_artifacts if path.is_dir() else self.client.log_artifact
            log(run_id, str(path), first["to"])
        elif first["kind"] == "resume":
            self.client.update_run(run_id, status="RUNNING")
        elif first["kind"] == "end":
            self.client.set_terminated(run_id, first["status"], end_time=first["time"])


def _read(path: Path, place: int) -> Iterator[tuple[Record, int]]:
    """Records from a place in the file, each with the place after it; half a line at the end is left for later."""
    with open(path, "rb") as file:
        file.seek(place)
        for line in file:
            place += len(line)
            if not line.endswith(b"\n"):
                return
            try:
                yield json.loads(line), place
            except json.JSONDecodeError:  # torn by a kill, and nobody was told that it was written
                continue


def _groups(records: Iterator[tuple[Record, int]]) -> Iterator[tuple[list[Record], int]]:
    """Neighbouring metrics together, as many as go into one request; all else alone."""
    group: list[Record] = []
    end = 0
    for record, place in records:
        points = sum(len(known["values"]) for known in group) + len(record.get("values", ()))
        if group and (record["kind"] != "metrics" or points > _MOST_METRICS):
            yield group, end
            group = []
        if record["kind"] == "metrics":
            group.append(record)
        else:
            yield [record], place
        end = place
    if group:
        yield group, end
