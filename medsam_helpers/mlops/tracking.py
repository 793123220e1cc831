"""`RunTracker`: a run in MLflow, through accelerate's tracker interface and a journal that survives the server."""

import json
import logging
import math
import os
import platform
import threading
import uuid
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from accelerate.tracking import GeneralTracker, on_main_process
from optuna import TrialPruned

from medsam_helpers.data.case import SPLITS, Dataset
from medsam_helpers.errors import DataError, MedsamError
from medsam_helpers.files import atomic_write
from medsam_helpers.mlops.hardware import HardwareMonitor
from medsam_helpers.mlops.journal import MAIN_JOURNAL, Delivery, Journal, start_record
from medsam_helpers.mlops.lineage import CASES_FILE, dataset_records
from medsam_helpers.mlops.server import tracking_uri, wait_until
from medsam_helpers.runs.card import git_commit

_LOG = logging.getLogger(__name__)
_LIBRARIES = ("torch", "transformers", "accelerate", "monai", "numpy", "mlflow")


class RunTracker(GeneralTracker):
    """A run; pass it as `fit(..., log_with=tracker)`, inside a `with` block that says how the run ended.

    All goes to the journal in `folder`, and a thread delivers it from there. What was not delivered when the run ends
    is delivered by `deliver(folder)`, or by the next tracker on the folder, which goes on with the run that is there.

    Args:
        folder: of the run, the `output` of `fit` for instance.
        experiment: of MLflow, made where missing.
        run_name: shown in MLflow; default: the folder's name.
        parent: `key` of the run that this one is a part of.
        uri: of the server; default: `tracking_uri()`.
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
        parent: str | None = None,
        uri: str | None = None,
        hardware_s: float = 5,
        patience_s: float = 20,
    ) -> None:
        self.folder, self.uri, self._patience = Path(folder), uri or tracking_uri(), patience_s
        number = int(os.environ.get("RANK", "0"))  # as torchrun says it
        self.tracker = Journal(self.folder, number)  # accelerate's name for what a tracker writes to
        super().__init__()
        self.key, self._end = "", threading.Event()
        self._delivery: Delivery | None = None
        if number == 0:
            if known := start_record(self.folder):
                self.key = known["key"]
                self.tracker.write("resume")
            else:
                self.key = uuid.uuid4().hex  # by which the run is known before it has an id
                tags = {f"version.{name}": version(name) for name in _LIBRARIES}
                tags |= {"version.python": platform.python_version(), "medsam.commit": git_commit()}
                about = {"experiment": experiment, "name": run_name or self.folder.name, "parent": parent}
                self.tracker.write("start", key=self.key, tags=tags, **about)
            self._delivery = Delivery(self.folder, self.uri)
            threading.Thread(target=self._keep_delivering, args=[self._delivery], daemon=True).start()
        self._monitor = HardwareMonitor(self.tracker, number, hardware_s) if hardware_s else None
        if self._monitor:
            self._monitor.start()

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
        with atomic_write(self.folder / CASES_FILE) as temporary:
            temporary.write_text(json.dumps(known, indent=1) + "\n")
        self.log_artifact(CASES_FILE)

    @on_main_process
    def log_artifact(self, path: str | Path, to: str | None = None) -> None:
        """Record a file, or a folder with all in it, by its path inside the run's folder; it has to stay there.

        Raises:
            DataError: there is no such file.
        """
        if not (self.folder / path).exists():
            raise DataError(f"{self.folder / path}: no such file; a run's files lie in the run's folder")
        self.tracker.write("artifact", path=str(path), to=to)

    @on_main_process
    def set_tags(self, values: Mapping[str, str]) -> None:
        """Record tags of the run; a tag that is there is overwritten."""
        self.tracker.write("tags", values=dict(values))

    def run_id(self, timeout_s: float = 300) -> str:
        """The run's id in MLflow, after all so far was delivered.

        Raises:
            MedsamError: the server did not take it in time.
        """
        if not (self._delivery and wait_until(self._delivery.try_to_send, timeout_s)):
            raise MedsamError(f"{self.uri} did not take the run within {timeout_s:.0f} s; it waits in {self.folder}")
        return self._delivery.run_id

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        stopped = kind and issubclass(kind, (KeyboardInterrupt, SystemExit, TrialPruned))
        if self._monitor:
            self._monitor.stop()
        self._end.set()
        if self._delivery:
            self.tracker.write("end", status="KILLED" if stopped else "FAILED" if kind else "FINISHED")
            if not wait_until(self._delivery.try_to_send, self._patience):
                _LOG.warning("%s is away; deliver %s later (see `deliver`)", self.uri, self.folder)

    def _keep_delivering(self, delivery: Delivery) -> None:
        """Deliver until the end; a server that is away is tried again after ever longer pauses, up to 10 s."""
        pause = 1.0
        while not self._end.wait(pause):
            arrived = delivery.try_to_send()
            if not arrived and pause == 1.0:
                _LOG.warning("%s does not answer; the run goes on, and its journal waits", self.uri)
            pause = 1.0 if arrived else min(10.0, 2 * pause)


def deliver(root: str | Path, uri: str | None = None) -> list[Path]:
    """The folders of the runs under `root` that a server had missed, or a part of them; it has them now.

    Raises:
        MlflowException: the server does not answer, or refuses.
    """
    folders = [path.parent for path in sorted(Path(root).rglob(MAIN_JOURNAL)) if start_record(path.parent)]
    return [folder for folder in folders if Delivery(folder, uri or tracking_uri()).send()]
