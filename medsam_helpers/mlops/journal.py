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
from itertools import groupby
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from medsam_helpers.errors import DataError
from medsam_helpers.files import atomic_write

_LOG = logging.getLogger(__name__)
MAIN_JOURNAL, _SENT, _KEY_TAG = "journal-0.jsonl", "sent.json", "medsam.key"

Record = dict[str, Any]


class Journal:
    """An append-only file of JSON lines, one a record, each on disk before `write` returns.

    Args:
        folder: of the run; each process of a distributed run has its own file in it.
        process: its number.
    """

    def __init__(self, folder: Path, process: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self._lock = folder / f"journal-{process}.jsonl", threading.Lock()
        content = self.path.read_bytes() if self.path.exists() else b""
        self._file = self.path.open("a", encoding="utf-8")
        if content and not content.endswith(b"\n"):  # a process that was killed left half a line
            self._file.write("\n")

    def write(self, kind: str, **content: Any) -> None:
        """Append a record with the time, in milliseconds since 1970."""
        line = json.dumps({"kind": kind, "time": round(time.time() * 1000), **content})
        with self._lock:
            self._file.write(line + "\n")
            self._file.flush()

    def begin(self, **about: Any) -> str:
        """The key of the folder's run, by which it is known before it has an id; a run that is there goes on.

        Args:
            about: experiment, name, tags and parent (another run's key, or None) of a new run.
        """
        if known := start_record(self.path.parent):
            self.write("resume")
            return known["key"]
        key = uuid.uuid4().hex
        self.write("start", key=key, **about)
        return key

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def start_record(folder: Path) -> Record | None:
    """The record that says which run a folder holds; None where none was begun."""
    path = folder / MAIN_JOURNAL
    records = read_records(path) if path.exists() else iter(())
    return next((record for record, _ in records if record["kind"] == "start"), None)


def read_records(path: Path, place: int = 0) -> Iterator[tuple[Record, int]]:
    """Records from a place in a journal, each with the place after it; half a line at the end is left for later."""
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


class Delivery:
    """Takes the records of a run's folder to MLflow, from where it stopped the last time.

    Raises:
        DataError: there is no run in the folder.
    """

    def __init__(self, folder: Path, uri: str) -> None:
        self.folder, self.uri, self.client = folder, uri, MlflowClient(uri)
        start = start_record(folder)
        if start is None:
            raise DataError(f"{folder}: holds no journal of a run")
        self.start, self.run_id = start, ""
        self._places: dict[str, int] = {}
        note = folder / _SENT
        known = json.loads(note.read_text()) if note.exists() else {}
        # Another server, or a fresh one at the same address, is told everything anew.
        if known.get("uri") == uri and self._exists(known["run_id"]):
            self.run_id, self._places = known["run_id"], known["places"]

    def is_whole(self) -> bool:
        """Whether nothing is left to deliver."""
        return bool(self.run_id) and all(p.stat().st_size == self._places.get(p.name) for p in self._journals())

    def send(self) -> None:
        """Deliver all that is there now.

        Raises:
            MlflowException: the server does not answer; what was delivered is noted.
        """
        self.run_id = self.run_id or self._find_or_create_run()
        for path in self._journals():
            new = read_records(path, self._places.get(path.name, 0))
            for metrics, group in groupby(new, key=lambda pair: pair[0]["kind"] == "metrics"):
                pairs = list(group)
                for part in [pairs] if metrics else [[pair] for pair in pairs]:
                    self._deliver_or_name([record for record, _ in part])
                    self._places[path.name] = part[-1][1]
                    with atomic_write(self.folder / _SENT) as temporary:
                        note = {"uri": self.uri, "run_id": self.run_id, "places": self._places}
                        temporary.write_text(json.dumps(note))

    def _journals(self) -> list[Path]:
        # The main journal last: its end closes the run.
        return sorted(self.folder.glob("journal-*.jsonl"), key=lambda path: path.name == MAIN_JOURNAL)

    def _exists(self, run_id: str) -> bool:
        try:
            return bool(self.client.get_run(run_id))
        except MlflowException as error:
            return error.error_code != "RESOURCE_DOES_NOT_EXIST"  # a server that is away forgets nothing

    def _find_or_create_run(self) -> str:
        name, key, parent = (self.start[about] for about in ("experiment", "key", "parent"))
        known = self.client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self.client.create_experiment(name)
        if found := self._run_of(experiment, key):  # an earlier delivery was killed after it made the run
            return found
        tags = self.start["tags"] | {_KEY_TAG: key}
        if parent:
            tags[MLFLOW_PARENT_RUN_ID] = self._run_of(experiment, parent)
            if tags[MLFLOW_PARENT_RUN_ID] is None:
                raise MlflowException("the run that this one is a part of has not arrived yet")
        return self.client.create_run(experiment, self.start["time"], tags, self.start["name"]).info.run_id

    def _run_of(self, experiment_id: str, key: str) -> str | None:
        found = self.client.search_runs([experiment_id], f"tags.`{_KEY_TAG}` = '{key}'", max_results=1)
        return found[0].info.run_id if found else None

    def _deliver_or_name(self, records: list[Record]) -> None:
        """Deliver; what MLflow refuses would be refused again, so it is named and holds up nothing."""
        try:
            self._deliver(records)
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            if len(records) > 1:
                for record in records:
                    self._deliver_or_name([record])
            else:
                _LOG.error("%s: MLflow refused %s: %s", self.folder, records[0], error.message)

    def _deliver(self, records: list[Record]) -> None:
        first, run_id, client = records[0], self.run_id, self.client
        match first["kind"]:
            case "metrics":
                points = [
                    Metric(name, value, record["time"], record["step"])
                    for record in records
                    for name, value in record["values"].items()
                ]
                client.log_batch(run_id, metrics=points)
            case "params":
                client.log_batch(run_id, params=[Param(k, v) for k, v in first["values"].items()])
            case "tags":
                client.log_batch(run_id, tags=[RunTag(k, v) for k, v in first["values"].items()])
            case "dataset":
                tags = [InputTag(k, v) for k, v in first["tags"].items()]
                client.log_inputs(run_id, [DatasetInput(Dataset(**first["dataset"]), tags)])
            case "artifact":
                path = self.folder / first["path"]
                log = client.log_artifacts if path.is_dir() else client.log_artifact
                log(run_id, str(path), first["to"])
            case "resume":
                client.update_run(run_id, status="RUNNING")
            case "end":
                client.set_terminated(run_id, first["status"], end_time=first["time"])
