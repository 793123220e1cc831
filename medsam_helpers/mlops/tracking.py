"""`RunTracker`: a run in MLflow, through accelerate's tracker interface and a journal that survives the server."""

from __future__ import annotations

import argparse
import logging
import math
import os
import platform
import threading
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

import requests
from accelerate.tracking import GeneralTracker, on_main_process
from mlflow.exceptions import MlflowException

from medsam_helpers.data.case import Dataset
from medsam_helpers.errors import DataError, MedsamError
from medsam_helpers.mlops.hardware import HardwareMonitor
from medsam_helpers.mlops.journal import Delivery, Journal, begin, start_record
from medsam_helpers.mlops.lineage import CASES_FILE, dataset_records, write_cases
from medsam_helpers.mlops.server import tracking_uri
from medsam_helpers.runs.card import git_commit

_LOG = logging.getLogger(__name__)
_TROUBLE = (MlflowException, requests.RequestException, OSError)
_VERSIONS = ("torch", "transformers", "accelerate", "monai", "numpy", "mlflow")


class RunTracker(GeneralTracker):
    """A run; pass it as `fit(..., log_with=tracker)`, best inside a `with` block that says how the run ended.

    All goes to the journal in `folder`, and a thread delivers it from there. Where the server is away, the run goes
    on; what was not delivered when it ends is delivered by `deliver(folder)`, or by the next tracker on the folder.
    A folder that holds a run already goes on with it.

    Args:
        folder: of the run, the `output` of `fit` for instance.
        experiment: of MLflow, made where missing.
        run_name: shown in MLflow; default: the folder's name.
        tags: of the run.
        parent: a tracker whose run this one is a part of, or that run's key.
        uri: of the server; default: `tracking_uri()`.
        hardware_s: seconds between two samples of the machine; 0 takes none.
        patience_s: how long the end of a run waits for the server.
    """

    name = "mlflow"
    requires_logging_directory = False

    def __init__(
        self,
        folder: str | Path,
        experiment: str = "medsam",
        run_name: str | None = None,
        *,
        tags: Mapping[str, str] | None = None,
        parent: RunTracker | str | None = None,
        uri: str | None = None,
        hardware_s: float = 5,
        patience_s: float = 20,
    ) -> None:
        super().__init__()
        self.folder, self.uri, self._patience = Path(folder), uri or tracking_uri(), patience_s
        number = int(os.environ.get("RANK", "0"))  # as torchrun says it
        self.journal = Journal(self.folder, number)
        self._postman: _Postman | None = None
        self._ended = False
        if number == 0:
            known = start_record(self.folder)
            if known:
                self.journal.write("resume")
            parent_key = parent.key if isinstance(parent, RunTracker) else parent
            name = run_name or self.folder.name
            self.key: str = known["key"] if known else begin(self.journal, experiment, name, _tags(tags), parent_key)
            self._postman = _Postman(self.folder, self.uri)
        self._monitor = HardwareMonitor(self._record_hardware, number, hardware_s) if hardware_s else None
        if self._monitor:
            self._monitor.start()

    @property
    def tracker(self) -> Journal:
        """Accelerate asks for what a tracker writes to."""
        return self.journal

    @on_main_process
    def store_init_configuration(self, values: dict) -> None:
        """The run's parameters: once, before the first step."""
        self.journal.write("params", values={name: str(value)[:6000] for name, value in values.items()})

    @on_main_process
    def log(self, values: dict, step: int | None = None, **_: Any) -> None:
        """Points of curves. What is no number yet (the loss before the first epoch) is none."""
        numbers = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        self.journal.write("metrics", values=numbers, step=step or 0)

    @on_main_process
    def log_data(self, dataset: Dataset) -> None:
        """The three splits with digest, terms and source, and each case's digest as a file."""
        for record in dataset_records(dataset):
            self.journal.write("dataset", **record)
        write_cases(dataset, self.folder / CASES_FILE)
        self.log_artifact(CASES_FILE)

    @on_main_process
    def log_artifact(self, path: str | Path, to: str | None = None) -> None:
        """A file, or a folder with all in it, by its path inside the run's folder; it has to stay there.

        Raises:
            DataError: there is no such file.
        """
        if not (self.folder / path).exists():
            raise DataError(f"{self.folder / path}: no such file; a run's files lie in the run's folder")
        self.journal.write("artifact", path=str(path), to=to)

    @on_main_process
    def set_tags(self, values: Mapping[str, str]) -> None:
        """Tags of the run; a tag that is there is overwritten."""
        self.journal.write("tags", values=dict(values))

    def run_id(self, timeout_s: float = 60) -> str:
        """The run's id in MLflow, after all so far was delivered.

        Raises:
            MedsamError: the server did not take it in time.
        """
        if not (self._postman and self._postman.flush(timeout_s)):
            raise MedsamError(f"{self.uri} did not take the run within {timeout_s:.0f} s; it waits in {self.folder}")
        return self._postman.run_id

    def finish(self) -> None:
        """Accelerate calls this after the training; the run may have more to tell, and ends with `end`."""

    def end(self, status: str = "FINISHED") -> bool:
        """End the run; says whether all was delivered.

        Args:
            status: "FINISHED", "FAILED" or "KILLED".
        """
        if self._ended:
            return True
        self._ended = True
        if self._monitor:
            self._monitor.stop()
        delivered = True
        if self._postman:
            self.journal.write("end", status=status)
            delivered = self._postman.stop(self._patience)
            if not delivered:
                _LOG.warning("%s is away; deliver %s later (see `deliver`)", self.uri, self.folder)
        self.journal.close()
        return delivered

    def __enter__(self) -> RunTracker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        stopped = kind is not None and issubclass(kind, (KeyboardInterrupt, SystemExit))
        self.end("FINISHED" if kind is None else "KILLED" if stopped else "FAILED")

    def _record_hardware(self, values: dict[str, float], seconds: int) -> None:
        self.journal.write("metrics", values=values, step=seconds)


class _Postman:
    """The thread that delivers a journal; away servers are tried again, after ever longer pauses up to 10 s."""

    def __init__(self, folder: Path, uri: str) -> None:
        self._folder, self._uri = folder, uri
        self.run_id: str | None = None
        self._wanted, self._stopped, self._lock = threading.Event(), threading.Event(), threading.Lock()
        self._delivery: Delivery | None = None
        self._thread = threading.Thread(target=self._run, name="mlflow delivery", daemon=True)
        self._thread.start()

    def flush(self, timeout_s: float) -> bool:
        """Whether all that is in the journal now was delivered within the time."""
        deadline = time.monotonic() + timeout_s
        while not self._try():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)
        return True

    def stop(self, timeout_s: float) -> bool:
        """Deliver the rest and end; the same answer."""
        self._stopped.set()
        self._wanted.set()
        return self.flush(timeout_s)

    def _run(self) -> None:
        pause, told = 1.0, False
        while not self._stopped.is_set():
            if self._try():
                pause, told = 1.0, False
            else:
                if not told:
                    _LOG.warning("%s does not answer; the run goes on, and its journal waits", self._uri)
                pause, told = min(10.0, 2 * pause), True
            self._wanted.wait(pause)

    def _try(self) -> bool:
        with self._lock:
            try:
                self._delivery = self._delivery or Delivery(self._folder, self._uri)
                self._delivery.send()
            except _TROUBLE as error:
                _LOG.debug("%s: %s", self._uri, error)
                return False
            self.run_id = self._delivery.run_id
            return True


def deliver(root: str | Path, uri: str | None = None) -> list[Path]:
    """Deliver every journal under a folder that was not delivered whole; gives the runs' folders.

    Raises:
        MlflowException: the server does not answer, or refuses.
    """
    folders = [path.parent for path in sorted(Path(root).rglob("journal-0.jsonl")) if start_record(path.parent)]
    deliveries = [Delivery(folder, uri or tracking_uri()) for folder in folders]
    late = [delivery for delivery in deliveries if delivery.run_id is None or delivery.waiting()]
    for delivery in late:
        delivery.send()
    return [delivery.folder for delivery in late]


def _tags(given: Mapping[str, str] | None) -> dict[str, str]:
    versions = {f"version.{name}": version(name) for name in _VERSIONS} | {"version.python": platform.python_version()}
    return {"medsam.commit": git_commit(), **versions, **(given or {})}


def main() -> None:
    """Deliver what a server missed."""
    parser = argparse.ArgumentParser(description="Deliver the journals of runs that the server missed.")
    parser.add_argument("folder", type=Path, help="of one run or of many")
    for folder in deliver(parser.parse_args().folder):
        print(f"delivered {folder}")


if __name__ == "__main__":
    main()
