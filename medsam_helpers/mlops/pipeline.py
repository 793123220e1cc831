"""One run through all stations: data, training, checkpoint and evaluation, each recorded in MLflow."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd

from medsam_helpers.data.case import Dataset
from medsam_helpers.data.loading import load_data
from medsam_helpers.evaluation.evaluate import evaluate
from medsam_helpers.evaluation.predictors import Predictor
from medsam_helpers.evaluation.tables import METRICS, paired_gain, summarise
from medsam_helpers.figures.gallery import qualitative_table
from medsam_helpers.mlops.lineage import TRAINED_BY_TAG
from medsam_helpers.mlops.registry import CHECKPOINT, CHECKPOINT_FILES
from medsam_helpers.mlops.tracking import RunTracker
from medsam_helpers.runs.finetune import finetune
from medsam_helpers.runs.folder import Finetuned
from medsam_helpers.runs.recorded import write_table
from medsam_helpers.runs.settings import RunConfig
from medsam_helpers.settings import BoxMode
from medsam_helpers.training.processes import processes
from medsam_helpers.training.recipes import Recipe

TRACKING_FOLDER, QUALITATIVE_FILE = ".tracking", "qualitative.json"


@dataclass(frozen=True)
class Tracked:
    """A finished run, and the ids of training and evaluation in MLflow, which of several processes the first has."""

    run: Finetuned
    run_id: str
    evaluation_id: str


def train_tracked(
    config: RunConfig,
    output: str | Path,
    *,
    recipe: Recipe | None = None,
    experiment: str = "medsam",
    uri: str | None = None,
    pictures: bool = True,
    show_progress: bool = True,
) -> Tracked:
    """The run that `finetune` gives, with data, curves, hardware, checkpoint and evaluation in MLflow.

    It lies in `output`, and in the `experiment` of MLflow at `uri`. A recipe takes the place of the config's; a sweep's
    winner, say. `pictures` keeps the table of pictures, unless images must not leave.
    """
    output = Path(output)
    with RunTracker(output / TRACKING_FOLDER, experiment, output.name, uri=uri) as tracker:
        tracker.set_tags({"medsam.kind": "training", "medsam.model": config.model})
        tracker.log_data(load_data(config.data, **config.selection()))
        run = finetune(config, output, show_progress, recipe=recipe, log_with=tracker)
        for name in CHECKPOINT_FILES:
            tracker.log_artifact(f"../{name}", CHECKPOINT)
        if not processes().is_main_process:  # the first one tells of all
            return Tracked(run, "", "")
        run_id = tracker.run_id()
    models = {"zero-shot": run.zero_shot.predict_case, "tuned": run.tuned.predict_case}
    _, evaluation_id = track_evaluation(tracker, run.dataset, models, box_mode=run.recipe.box_mode, pictures=pictures)
    return Tracked(run, run_id, evaluation_id)


def track_evaluation(
    training: RunTracker,
    dataset: Dataset,
    models: Mapping[str, Predictor],
    *,
    box_mode: BoxMode = "union",
    pictures: bool = True,
) -> tuple[pd.DataFrame, str]:
    """The scores of models on val, and the id of the MLflow run that keeps scores, means and pictures.

    Val is scored with boxes "exact" and "j20". Of the models, "zero-shot" and "tuned", say, the last one is in
    question: `training` is its run, in the folder `val` of which `metrics.csv` and the evaluation's journal lie.
    """
    folder = training.folder / "val"
    with RunTracker(folder, training.experiment, "evaluate val", uri=training.uri, hardware_s=0) as tracker:
        tracker.set_tags({TRAINED_BY_TAG: training.run_id(), "medsam.kind": "evaluation"})
        tracker.log_data(dataset, ("val",))
        options: dict[str, Any] = {"box_mode": box_mode, "group_of": dataset.group_of, "show_progress": False}
        table = evaluate(dataset.val, models, prompts=("exact", "j20"), **options)
        write_table(table, folder / "metrics.csv")
        tracker.log_artifact("metrics.csv")
        tracker.log(headline(table))
        run_id = tracker.run_id()
        if pictures:
            rows = qualitative_table(dataset.val, models, "j20", box_mode=box_mode).round(4)
            shown = rows.map(lambda cell: mlflow.Image(cell) if isinstance(cell, np.ndarray) else cell)
            columns = {str(name): list(column) for name, column in shown.items()}
            with warnings.catch_warnings(action="ignore"):  # MLflow asks pandas 3 in a way of pandas 2
                mlflow.MlflowClient(tracker.uri).log_table(run_id, columns, QUALITATIVE_FILE)
    return table, run_id


def headline(table: pd.DataFrame) -> dict[str, float]:
    """Means of a table under names that MLflow takes, `tuned/j20/dice`; and the tuned model's gain over zero-shot."""
    rows = summarise(table).to_dict("records")
    means = {f"{row['model']}/{row['prompt']}/{metric}": float(row[metric]) for row in rows for metric in METRICS}
    for prompt in table["prompt"].unique():
        gain = paired_gain(table, prompt)._asdict()
        means |= {f"gain/{prompt}/{name}": value for name, value in gain.items() if np.isfinite(value)}
    return means
