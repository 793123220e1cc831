"""The journal of a run: everything is written to a file first, and delivered to MLflow from there.

Training never waits for the server and never dies of it: what the server misses is delivered later, by the same process
or by another. Delivering twice changes nothing: MLflow keeps equal points of a metric once.
"""

import contextlib
import errno
import json
import logging
import threading
import time
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException

from medsam_helpers.errors import DataError
from medsam_helpers.files import write_text

_LOG = logging.getLogger(__name__)
MAIN_JOURNAL, _SENT, _KEY_TAG = "journal-0.jsonl", "sent.json", "medsam.key"
Record = dict[str, Any]


class Journal:
    """A file of JSON lines, one a record; each process of a distributed run has its own."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self._lock = path, threading.Lock()
        self._torn = path.exists()  # a killed process or a full disk may have left half a line

    def write(self, kind: str, **content: Any) -> None:
        """Append a record with the time, in milliseconds since 1970."""
        line = json.dumps({"kind": kind, "time": round(time.time() * 1000), **content}) + "\n"
        with self._lock:
            torn, self._torn = self._torn, True
            with self.path.open("a", encoding="utf-8") as file:
                file.write("\n" * torn + line)
            self._torn = False


def start_record(folder: Path) -> Record | None:
    """The record that says which run a folder holds; None where none was begun."""
    return next((record for record, _ in read_records(folder / MAIN_JOURNAL) if record["kind"] == "start"), None)


def read_records(path: Path, place: int = 0) -> Iterator[tuple[Record, int]]:
    """Records from a place in a journal, each with the place after it; half a line at the end is left for later."""
    if not path.exists():
        return
    with open(path, "rb") as file:
        file.seek(place)
        for line in file:
            place += len(line)
            if not line.endswith(b"\n"):
                return
            with contextlib.suppress(ValueError):  # torn by a kill or a power cut, or the empty line after it
                yield json.loads(line), place


class Delivery:
    """Takes the records of a run's folder to MLflow, from where it stopped; `DataError` if there is no run in it."""

    def __init__(self, folder: Path, uri: str) -> None:
        self.folder, self.client, self.run_id = folder, MlflowClient(uri), ""
        start = start_record(folder)
        if start is None:
            raise DataError(f"{folder}: holds no journal of a run")
        self._start, self._places, self.trouble = start, dict[str, int](), ""
        self._sending = FileLock(folder / ".sending.lock")  # one at a time, of other processes too: or two make a run

    def send(self) -> bool:
        """Whether there was something new; it is delivered. `MlflowException` if the server does not answer."""
        sent = False
        with self._sending:
            if not self.run_id:
                self._find_or_create_run()
            for path in sorted(self.folder.glob("journal-*.jsonl"), reverse=True):  # the main one last: it has the end
                new = read_records(path, self._places.get(path.name, 0))
                # Neighbouring metrics go in one request, all else by itself.
                for _, pairs in groupby(new, lambda pair: pair[0]["kind"] == "metrics" or pair[1]):
                    records, places = zip(*pairs, strict=True)
                    self._deliver_or_name(records)
                    self._places[path.name], sent = places[-1], True
                    write_text(self.folder / _SENT, json.dumps({"run_id": self.run_id, "places": self._places}))
        return sent

    def try_to_send(self) -> bool:
        """Whether the server took all that is there now; else `trouble` says why not. For several threads."""
        try:
            self.send()
        except (MlflowException, OSError) as error:  # those of requests are OSErrors, without a number
            _LOG.debug("%s: %s", self.client.tracking_uri, error)
            full = isinstance(error, OSError) and error.errno == errno.ENOSPC
            self.trouble = f"no room on the disk of {self.folder}" if full else f"{self.client.tracking_uri} is away"
            return False
        return True

    def _find_or_create_run(self) -> None:
        start, note = self._start, self.folder / _SENT
        known = self.client.get_experiment_by_name(start["experiment"])
        experiment = known.experiment_id if known else self.client.create_experiment(start["experiment"])
        asked = f"tags.`{_KEY_TAG}` = '{start['key']}'"  # of deleted runs too: one is not made again
        found = list(self.client.search_runs([experiment], asked, ViewType.ALL))
        if not found:
            tags = start["tags"] | {_KEY_TAG: start["key"]}
            found = [self.client.create_run(experiment, start["time"], tags, start["name"])]
        elif note.exists() and (sent := json.loads(note.read_text()))["run_id"] == found[0].info.run_id:
            self._places = sent["places"]  # another server, or a fresh one at the same address, is told everything anew
        self.run_id = found[0].info.run_id

    def _deliver_or_name(self, records: tuple[Record, ...]) -> None:
        """Deliver; what MLflow refuses would be refused again, so it is named and holds up nothing."""
        try:
            self._deliver(records)
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            if len(records) == 1:
                _LOG.error("%s: MLflow refused %s: %s", self.folder, records[0], error.message)
                return
            for record in records:
                self._deliver_or_name((record,))

    def _deliver(self, records: tuple[Record, ...]) -> None:
        first, run_id, client = records[0], self.run_id, self.client
        match first["kind"]:
            case "metrics":
                points = [Metric(k, v, r["time"], r["step"]) for r in records for k, v in r["values"].items()]
                client.log_batch(run_id, metrics=points)
            case "params":
                client.log_batch(run_id, params=[Param(k, v) for k, v in first["values"].items()])
            case "tags":
                client.log_batch(run_id, tags=[RunTag(k, v) for k, v in first["values"].items()])
            case "dataset":
                tags = [InputTag(k, v) for k, v in first["tags"].items()]
                client.log_inputs(run_id, [DatasetInput(Dataset(**first["dataset"]), tags)])
            case "artifact":
                client.log_artifact(run_id, str(self.folder / first["path"]), first["to"])
            case "resume":
                client.update_run(run_id, status="RUNNING")
            case "end":
                client.set_terminated(run_id, first["status"], end_time=first["time"])
