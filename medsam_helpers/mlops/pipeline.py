"""One experiment through all stations: data, training, checkpoint and evaluation, each told to MLflow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medsam_helpers.data.sources import load_data
from medsam_helpers.mlops.evaluations import track_evaluation
from medsam_helpers.mlops.registry import CHECKPOINT, CHECKPOINT_FILES
from medsam_helpers.mlops.tracking import RunTracker
from medsam_helpers.runs.finetune import finetune
from medsam_helpers.runs.folder import Finetuned
from medsam_helpers.runs.settings import RunConfig
from medsam_helpers.training.recipes import Recipe

TRACKING_FOLDER = ".tracking"


@dataclass(frozen=True)
class Tracked:
    """A finished run, and the ids of its training and its evaluation in MLflow."""

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
    """Fine-tune as `finetune` does, with data, curves, hardware, checkpoint and evaluation in MLflow.

    The training goes on without the server; the evaluation's run needs it.

    Args:
        config: what to run.
        output: folder of the run.
        recipe: in place of the config's; a sweep's winner, say.
        experiment: of MLflow.
        uri: of the server.
        pictures: keep the table of pictures; not where images must not leave.
        show_progress: show the bars.
    Raises:
        MedsamError: any of its kinds.
    """
    output = Path(output)
    with RunTracker(output / TRACKING_FOLDER, experiment, output.name, uri=uri) as tracker:
        tracker.set_tags({"medsam.kind": "training", "medsam.model": config.model})
        tracker.log_data(load_data(config.data, **config.limits()))
        run = finetune(config, output, show_progress, recipe=recipe, log_with=tracker)
        for name in CHECKPOINT_FILES:
            tracker.log_artifact(f"../{name}", CHECKPOINT)
        run_id = tracker.run_id()
    _, evaluation_id = track_evaluation(
        output / TRACKING_FOLDER / "val",
        run.dataset,
        {"zero-shot": run.zero_shot.predict_case, "tuned": run.tuned.predict_case},
        run_id,
        box_mode=run.recipe.box_mode,
        pictures=pictures,
        experiment=experiment,
        uri=uri,
    )
    return Tracked(run, run_id, evaluation_id)
