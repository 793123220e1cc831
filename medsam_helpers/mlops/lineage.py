"""Where a model comes from and where a data set went: recorded with each run, asked both ways."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

from medsam_helpers.data.case import SPLITS, Cases, Dataset
from medsam_helpers.files import atomic_write

CASES_FILE = "cases.json"
TRAINED_BY_TAG = "medsam.trained_by"
_DIGEST_CHARACTERS = 36  # all that MLflow keeps; 144 bits of a SHA-256


def split_digest(cases: Cases) -> str:
    """A split's digest as MLflow keeps it: over names and pixels, where MLflow's own would look at neither whole."""
    return cases.digest[:_DIGEST_CHARACTERS]


def dataset_records(dataset: Dataset, splits: tuple[str, ...] = SPLITS) -> Iterator[dict[str, Any]]:
    """What MLflow is told of each split that has cases: name, digest, number of cases, terms, and what it is for."""
    for split in splits:
        cases = getattr(dataset, split)
        if len(cases):
            about = {"cases": len(cases), "licence": dataset.licence, "citation": dataset.citation}
            described = {
                "name": f"{dataset.name}/{split}",
                "digest": split_digest(cases),
                "source_type": "medsam_helpers",
                "source": json.dumps({"data": dataset.name, "split": split, "sha256": cases.digest}),
                "profile": json.dumps(about),
            }
            yield {"dataset": described, "tags": {MLFLOW_DATASET_CONTEXT: split}}


def write_cases(dataset: Dataset, path: Path) -> None:
    """Each case's image digest by split and name, as JSON: what shows whether two runs shared an image."""
    splits = {split: getattr(dataset, split) for split in SPLITS}
    known = {
        split: {name: case.image_digest for name, case in zip(cases.names, cases, strict=True)}
        for split, cases in splits.items()
    }
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(known, indent=1) + "\n")


@dataclass(frozen=True)
class Origin:
    """Where a version of a registered model comes from."""

    name: str
    version: str
    aliases: tuple[str, ...]
    run_id: str
    run_name: str
    commit: str
    datasets: dict[str, dict[str, Any]]
    """What the run used by its purpose ("train", ...): name, digest, cases, licence, citation."""
    evaluations: dict[str, dict[str, float]]
    """Runs that scored this model: their metrics by run id."""


def trace_back(client: MlflowClient, name: str, version: str | None = None, alias: str | None = None) -> Origin:
    """From a model's version, or an alias, to the run, the code and the data that made it.

    Raises:
        MlflowException: no such model, version or alias.
    """
    if version is None:
        version = client.get_model_version_by_alias(name, alias or "champion").version
    entry = client.get_model_version(name, version)
    run = client.get_run(entry.run_id)
    scored = client.search_runs([run.info.experiment_id], f"tags.`{TRAINED_BY_TAG}` = '{entry.run_id}'")
    return Origin(
        name=name,
        version=str(version),
        aliases=tuple(entry.aliases),
        run_id=entry.run_id,
        run_name=run.info.run_name,
        commit=run.data.tags.get("medsam.commit", "unknown"),
        datasets=datasets_of(run),
        evaluations={found.info.run_id: dict(found.data.metrics) for found in scored},
    )


def datasets_of(run: Run) -> dict[str, dict[str, Any]]:
    """What a run used, by its purpose."""
    found = {}
    for used in run.inputs.dataset_inputs:
        purpose = next((tag.value for tag in used.tags if tag.key == MLFLOW_DATASET_CONTEXT), "data")
        known = {"name": used.dataset.name, "digest": used.dataset.digest}
        found[purpose] = known | json.loads(used.dataset.profile or "{}")
    return found


def runs_using(client: MlflowClient, cases: Cases | str) -> list[Run]:
    """Every run, of any experiment, that used exactly these cases for anything; the oldest first.

    Args:
        client: of the server.
        cases: a split, or its digest.
    """
    digest = cases if isinstance(cases, str) else split_digest(cases)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found, token = [], None
    while token != "":
        page = client.search_runs(
            experiments, f"dataset.digest = '{digest}'", order_by=["attributes.start_time ASC"], page_token=token
        )
        found, token = found + list(page), page.token or ""
    return found
