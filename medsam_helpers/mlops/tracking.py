"""`RunTracker`: a run in MLflow, through accelerate's tracker interface and a journal that survives the server."""

import contextlib
import json
import logging
import math
import platform
import threading
import time
import uuid
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from accelerate.tracking import GeneralTracker, on_main_process
from filelock import FileLock, Timeout
from optuna import TrialPruned

from medsam_helpers.data.case import SPLITS, Dataset
from medsam_helpers.errors import DataError, MedsamError
from medsam_helpers.files import write_text
from medsam_helpers.mlops.hardware import hardware_samples
from medsam_helpers.mlops.journal import MAIN_JOURNAL, Delivery, Journal, read_records, start_record
from medsam_helpers.mlops.lineage import CASES_FILE, dataset_records
from medsam_helpers.mlops.server import tracking_uri, wait_until
from medsam_helpers.runs.card import git_commit
from medsam_helpers.training.processes import processes

_LOG = logging.getLogger(__name__)
_ALIVE = ".alive.lock"  # held by the process of a run as long as it lives
_LIBRARIES = ("torch", "transformers", "accelerate", "monai", "numpy", "mlflow")


class RunTracker(GeneralTracker):
    """A run; pass it as `fit(..., log_with=tracker)`, inside a `with` block that says how the run ended.

    All goes to the journal in `folder`, and a thread delivers it from there. What is left at the end is delivered by
    `deliver(folder)`, or by the next tracker on the folder, which goes on with the run that is there.

    Args:
        folder: of the run, the `output` of `fit` for instance; it names the run in MLflow unless `run_name` does.
        experiment: of MLflow, made where missing; the server's `uri` is by default `tracking_uri()`.
        hardware_s: seconds between two samples of the machine; 0 takes none.
        patience_s: seconds that the end of a run waits for the server.
    """

    name = "mlflow"
    requires_logging_directory = False

    def __init__(
        self,
        folder: str | Path,
        experiment: str = "medsam",
        run_name: str | None = None,
        *,
        uri: str | None = None,
        hardware_s: float = 5,
        patience_s: float = 20,
    ) -> None:
        self.folder, self.experiment, self.uri = Path(folder), experiment, uri or tracking_uri()
        number = processes().process_index
        self.tracker = Journal(self.folder / f"journal-{number}.jsonl")  # the attribute that accelerate asks for
        super().__init__()
        self._patience, self._end = patience_s, threading.Event()
        self._delivery: Delivery | None = None
        if number == 0:
            self._alive = FileLock(self.folder / _ALIVE, thread_local=False)
            try:
                self._alive.acquire(timeout=patience_s)  # one that was stopped may need a moment
            except Timeout as error:
                raise MedsamError(f"{self.folder}: another process is at this run; wait for it, or stop it") from error
            if start_record(self.folder):
                self.tracker.write("resume")
            else:
                tags = {f"version.{name}": version(name) for name in _LIBRARIES}
                tags |= {"version.python": platform.python_version(), "medsam.commit": git_commit()}
                name = run_name or self.folder.name  # the key stands for the run until it has an id
                self.tracker.write("start", experiment=experiment, name=name, key=uuid.uuid4().hex, tags=tags)
            with contextlib.suppress(ImportError):  # else MLflow does so in the thread: half of it breaks a `savefig`
                import IPython  # noqa: F401
            self._delivery = Delivery(self.folder, self.uri)
            threading.Thread(target=self._keep_delivering, args=[self._delivery], daemon=True).start()
        self._measuring = threading.Thread(target=self._keep_measuring, args=[hardware_s], daemon=True)
        if hardware_s:
            self._measuring.start()

    @on_main_process
    def store_init_configuration(self, values: dict) -> None:
        """Record the run's parameters: once, before the first step."""
        self.tracker.write("params", values={name: str(value)[:6000] for name, value in values.items()})

    @on_main_process
    def log(self, values: dict, step: int | None = None, **_: Any) -> None:
        """Record points of curves; what is no number yet (the loss before the first epoch) is left out."""
        numbers = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        self.tracker.write("metrics", values=numbers, step=step or 0)

    @on_main_process
    def log_data(self, dataset: Dataset, splits: tuple[str, ...] = SPLITS) -> None:
        """Record splits with digest, terms and source, and as a file what shows whether two runs shared an image."""
        for record in dataset_records(dataset, splits):
            self.tracker.write("dataset", **record)
        known = {split: {case.name: case.image_digest for case in getattr(dataset, split)} for split in splits}
        write_text(self.folder / CASES_FILE, json.dumps(known, indent=1) + "\n")
        self.log_artifact(CASES_FILE)

    @on_main_process
    def log_artifact(self, path: str | Path, to: str | None = None) -> None:
        """Record a file by its path from the run's folder; it has to stay there. `DataError` if there is none."""
        if not (self.folder / path).exists():
            raise DataError(f"{self.folder / path}: no such file; a run's files lie in the run's folder")
        self.tracker.write("artifact", path=str(path), to=to)

    @on_main_process
    def set_tags(self, values: Mapping[str, str]) -> None:
        """Record tags of the run; a tag that is there is overwritten."""
        self.tracker.write("tags", values=dict(values))

    def run_id(self, timeout_s: float = 300) -> str:
        """The run's id in MLflow, all so far delivered; `MedsamError` if the server did not take it in time."""
        if not (self._delivery and wait_until(self._delivery.try_to_send, timeout_s)):
            why = f" ({self._delivery.trouble})" if self._delivery else ""
            told = f"{self.uri} did not take the run within {timeout_s:.0f} s{why}"
            raise MedsamError(f"{told}; it waits in {self.folder}")
        return self._delivery.run_id

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        stopped = kind and issubclass(kind, (KeyboardInterrupt, SystemExit, TrialPruned))
        self._end.set()
        if self._measuring.is_alive():
            self._measuring.join()
        if self._delivery:
            self.tracker.write("end", status="KILLED" if stopped else "FAILED" if kind else "FINISHED")
            if not wait_until(self._delivery.try_to_send, self._patience):
                _LOG.warning("%s; deliver %s later (see `deliver`)", self._delivery.trouble, self.folder)
            self._alive.release()

    def _keep_measuring(self, interval_s: float) -> None:
        """Record the hardware every so many seconds, and at the end."""
        samples = hardware_samples(processes().process_index, processes().local_process_index)
        started, ended = time.monotonic(), False
        next(samples)  # the load is measured from here
        while not ended:
            ended = self._end.wait(interval_s)
            self.tracker.write("metrics", values=next(samples), step=round(time.monotonic() - started))

    def _keep_delivering(self, delivery: Delivery) -> None:
        """Deliver until the end; a server that is away is tried again after ever longer pauses, up to 10 s."""
        pause = 1.0
        while not self._end.wait(pause):
            arrived = delivery.try_to_send()
            if not arrived and pause == 1.0:
                _LOG.warning("%s; the run goes on, and its journal waits", delivery.trouble)
            pause = 1.0 if arrived else min(10.0, 2 * pause)


def deliver(root: str | Path, uri: str | None = None) -> list[Path]:
    """The folders of runs under `root` of which a server missed something; it has all now, else `MlflowException`.

    A run whose process died is told to have been killed, when it wrote its last record.
    """
    folders = [path.parent for path in sorted(Path(root).rglob(MAIN_JOURNAL)) if start_record(path.parent)]
    for folder in folders:
        with contextlib.suppress(Timeout), FileLock(folder / _ALIVE, timeout=0):
            *_, (last, _) = read_records(folder / MAIN_JOURNAL)
            if last["kind"] != "end":
                Journal(folder / MAIN_JOURNAL).write("end", status="KILLED", time=last["time"])
    return [folder for folder in folders if Delivery(folder, uri or tracking_uri()).send()]
