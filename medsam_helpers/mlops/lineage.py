"""Where a model comes from and where a data set went: recorded with each run, asked both ways."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

from medsam_helpers.data.case import Cases, Dataset

CASES_FILE, TRAINED_BY_TAG = "cases.json", "medsam.trained_by"


def split_digest(cases: Cases) -> str:
    """A split's digest over names and pixels, cut to the 36 characters that MLflow keeps (its own sees no pixels)."""
    return cases.digest[:36]


def dataset_records(dataset: Dataset, splits: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Journal records of the splits that have cases: name, digest, number of cases, terms, and what each is for."""
    for split in splits:
        if len(cases := getattr(dataset, split)):
            about = {"cases": len(cases), "licence": dataset.licence, "citation": dataset.citation}
            source = {"data": dataset.name, "split": split, "sha256": cases.digest}
            described = {"name": f"{dataset.name}/{split}", "digest": split_digest(cases)}
            described |= {"source_type": "medsam_helpers", "source": json.dumps(source), "profile": json.dumps(about)}
            yield {"dataset": described, "tags": {MLFLOW_DATASET_CONTEXT: split}}


@dataclass(frozen=True)
class Origin:
    """A version of a registered model, the run that made it with which code and data, and the runs that scored it."""

    model: ModelVersion
    run: Run
    evaluations: list[Run]
    commit: str  # "...+dirty" where files were changed since
    datasets: dict[str, dict[str, Any]]  # as in `datasets_of`


def trace_back(client: MlflowClient, name: str, alias: str = "champion") -> Origin:
    """The run, the code and the data that made the version of a model that has an alias; else `MlflowException`."""
    model = client.get_model_version_by_alias(name, alias)
    run = client.get_run(str(model.run_id))
    scored = client.search_runs([run.info.experiment_id], f"tags.`{TRAINED_BY_TAG}` = '{model.run_id}'")
    return Origin(model, run, list(scored), run.data.tags["medsam.commit"], datasets_of(run))


def datasets_of(run: Run) -> dict[str, dict[str, Any]]:
    """What a run used, by its purpose ("train", ...): name, digest, cases, licence, citation."""
    found = {}
    for used in run.inputs.dataset_inputs if run.inputs else []:
        purpose = next(tag.value for tag in used.tags if tag.key == MLFLOW_DATASET_CONTEXT)
        known = {"name": used.dataset.name, "digest": used.dataset.digest}
        found[purpose] = known | json.loads(used.dataset.profile or "{}")
    return found


def runs_using(client: MlflowClient, cases: Cases) -> list[Run]:
    """Every run, of any experiment, that used exactly these cases for anything; the oldest first."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    asked = f"dataset.digest = '{split_digest(cases)}'"
    return list(client.search_runs(experiments, asked, max_results=50_000, order_by=["attributes.start_time ASC"]))
