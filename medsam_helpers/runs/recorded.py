"""Recorded runs side by side: a record's table with each run as a model of its own."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from medsam_helpers.errors import DataError
from medsam_helpers.evaluation.predictors import WITH_TTA
from medsam_helpers.evaluation.tables import COLUMNS, read_table
from medsam_helpers.sam.checkpoints import SPECIALISTS


def runs_as_models(folder: str | Path, tested_on: str) -> pd.DataFrame:
    """Table of the scores of a recorded experiment on one data set, for every function that takes tables.

    `model` is the run's name where the model was trained, "NAME zero-shot" for a base model as it is, "NAME zero-shot
    with tta" with test-time augmentation, and "box" and "ellipse" once. Untrained specialists are left out. Several
    seeds or folds of a run are several rows a case, which `summarise` averages by case.

    Args:
        folder: of the record, such as `notebooks/results/specialist`.
        tested_on: name of a data set in it.
    Returns:
        The columns `COLUMNS`, and `run`.
    Raises:
        DataError: no such record, or nothing in it was scored on that data set.
    """
    path = Path(folder) / "metrics.csv"
    table = read_table(path)
    more = pd.read_csv(path, usecols=["run", "tested_on", "base"], dtype=str)
    table = pd.concat([table, more], axis=1)[more["tested_on"] == tested_on]
    if table.empty:
        raise DataError(f"{path}: nothing was scored on {tested_on!r}, but on {', '.join(set(more['tested_on']))}")
    table = table[~((table["model"] == "zero-shot") & table["base"].isin(SPECIALISTS))]
    parts = table["base"].str.partition(WITH_TTA)
    names = table["model"].where(table["model"] != "zero-shot", parts[0] + " zero-shot" + parts[1])
    names = names.where(table["model"] != "tuned", table["run"])
    return table.assign(model=names)[[*COLUMNS, "run"]].reset_index(drop=True)
