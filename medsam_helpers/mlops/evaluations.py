"""An evaluation as a run of its own, tied to the run that trained the model; with the table of pictures."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from mlflow import MlflowClient

from medsam_helpers.data.case import Dataset
from medsam_helpers.evaluation.evaluate import Predictor, evaluate
from medsam_helpers.evaluation.tables import METRICS, paired_gain, summarise, write_table
from medsam_helpers.figures.gallery import qualitative_html, qualitative_table
from medsam_helpers.files import atomic_write
from medsam_helpers.mlops.lineage import TRAINED_BY_TAG, dataset_records
from medsam_helpers.mlops.tracking import RunTracker
from medsam_helpers.prompts import BoxMode

QUALITATIVE_FILE = "qualitative.json"


def track_evaluation(
    folder: Path,
    dataset: Dataset,
    models: Mapping[str, Predictor],
    trained_by: str,
    *,
    prompts: Sequence[str] = ("exact", "j20"),
    box_mode: BoxMode = "union",
    pictures: bool = True,
    experiment: str = "medsam",
    uri: str | None = None,
) -> tuple[pd.DataFrame, str]:
    """Score models on val, and keep table, means and pictures in a run of their own.

    Args:
        folder: of the evaluation; `metrics.csv` and the journal lie there.
        dataset: whose val is scored.
        models: "zero-shot" and "tuned", say; the last one is the model in question.
        trained_by: id of the run that trained it.
        prompts: see `evaluate`.
        box_mode: see `evaluate`.
        pictures: keep the table of pictures too, with the last of the prompts; not where images must not leave.
        experiment: of MLflow.
        uri: of the server.
    Returns:
        The table of scores, and the id of the evaluation's run.
    """
    with RunTracker(folder, experiment, f"evaluate {folder.name}", uri=uri, hardware_s=0) as tracker:
        tracker.set_tags({TRAINED_BY_TAG: trained_by, "medsam.kind": "evaluation"})
        for record in dataset_records(dataset, ("val",)):
            tracker.journal.write("dataset", **record)
        table = evaluate(dataset.val, models, prompts=prompts, box_mode=box_mode, show_progress=False)
        write_table(table, folder / "metrics.csv")
        tracker.log_artifact("metrics.csv")
        tracker.log(headline(table))
        run_id = tracker.run_id()
        if pictures:
            rows = qualitative_table(dataset.val, models, prompts[-1], box_mode=box_mode)
            log_pictures(tracker.uri, run_id, rows)
            with atomic_write(folder / "qualitative.html") as temporary:
                temporary.write_text(qualitative_html(rows, dataset.name), encoding="utf-8")
            tracker.log_artifact("qualitative.html")
    return table, run_id


def headline(table: pd.DataFrame) -> dict[str, float]:
    """Means of a table under names that MLflow takes, `tuned/j20/dice`; and each model's gain over zero-shot."""
    means = {
        f"{row.model}/{row.prompt}/{metric}": float(getattr(row, metric))
        for row in summarise(table).itertuples()
        for metric in METRICS
    }
    models, prompts = set(table["model"]), list(dict.fromkeys(table["prompt"]))
    if {"zero-shot", "tuned"} <= models:
        for prompt in prompts:
            gain = paired_gain(table, prompt)
            means |= {f"gain/{prompt}/{name}": value for name, value in gain._asdict().items()}
    return means


def log_pictures(uri: str, run_id: str, rows: pd.DataFrame) -> None:
    """The table of `qualitative_table` as an MLflow table, worst first, with its pictures.

    Args:
        uri: of the server.
        run_id: which gets the table, as `qualitative.json`.
        rows: pictures as (h, w, 3) uint8 arrays in its cells.
    """
    columns = {
        name: [mlflow.Image(cell) if isinstance(cell, np.ndarray) else _plain(cell) for cell in rows[name]]
        for name in rows
    }
    with warnings.catch_warnings():  # MLflow asks pandas 3 in a way of pandas 2
        warnings.simplefilter("ignore")
        MlflowClient(uri).log_table(run_id, columns, QUALITATIVE_FILE)


def _plain(cell: object) -> object:
    return round(float(cell), 4) if isinstance(cell, (float, np.floating)) else cell
