"""Tables of scores as files, and a record's with each run as a model of its own."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from medsam_helpers.errors import DataError
from medsam_helpers.evaluation.intervals import Interval, finite
from medsam_helpers.evaluation.predictors import WITH_TTA
from medsam_helpers.evaluation.tables import COLUMNS, GROUP, METRICS, gains
from medsam_helpers.files import atomic_write
from medsam_helpers.sam.checkpoints import SPECIALISTS


def runs_as_models(folder: str | Path, tested_on: str) -> pd.DataFrame:
    """Table of the scores of a recorded experiment on one data set, for every function that takes tables.

    `model` is the run's name where the model was trained, "NAME zero-shot" for a base model as it is, "NAME zero-shot
    with tta" with test-time augmentation, and "box" and "ellipse" once. Untrained specialists are left out. Several
    seeds or folds of a run are several rows a case, which `summarise` averages by case.

    The columns are `COLUMNS` and `run`. `DataError`: there is no such record in the folder (of `notebooks/results`,
    say), or nothing in it was scored on that data set.
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


def write_table(table: pd.DataFrame, path: str | Path) -> None:
    """The table as a CSV file, whole or not at all, six decimals, so that equal runs write equal files."""
    with atomic_write(path) as temporary:
        columns = [*COLUMNS, *table.columns.intersection([GROUP])]
        # A cell that begins so is a formula to a spreadsheet, unless an apostrophe stands before it.
        safe = table.assign(case=table["case"].str.replace(r"^(?=[=+\-@'])", "'", regex=True))
        safe.to_csv(temporary, columns=columns, index=False, float_format="%.6f", lineterminator="\n")


def read_table(path: str | Path) -> pd.DataFrame:
    """A table that `write_table` wrote, names as text, "007" and "NA" too; `DataError` where the file is none."""
    text = dict.fromkeys(["case", "model", "prompt", GROUP], str)
    try:
        table = pd.read_csv(path, dtype=text, keep_default_na=False, na_values={"iou_score": [""]})
        if missing := [column for column in COLUMNS if column not in table]:
            raise DataError(f"{path} lacks the column(s) {', '.join(missing)}: a table of scores has {COLUMNS}")
        table["case"] = table["case"].str.replace(r"^'(?=[=+\-@'])", "", regex=True)
        known = [*COLUMNS, *table.columns.intersection([GROUP])]
        return table[known].astype(dict.fromkeys([*METRICS, "iou_score"], float))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a table of scores: {error}") from error


def bootstrap_mean(values: ArrayLike, *, seed: int = 0) -> Interval:
    """Mean of `values` with its 95 % percentile bootstrap interval; of equal values, or a single one, without width.

    The intervals of the records in `notebooks/results` are of this kind; `mean_interval` covers better. The values are
    (N,) float, one a case, else it is a `DataError`; the seed is that of 10,000 resamples.
    """
    values = finite(values)
    mean = float(values.mean())
    if np.ptp(values) == 0:
        return Interval(mean, mean, mean)
    how = {"n_resamples": 10_000, "batch": 1000, "method": "percentile"}  # batch bounds memory
    low, high = stats.bootstrap((values,), np.mean, **how, rng=np.random.default_rng(seed)).confidence_interval
    return Interval(mean, float(low), float(high))


def recorded_gain(*table_and_names: Any, **names: Any) -> Interval:
    """Mean of the `gains` of these arguments, with the interval that the records were written with."""
    return bootstrap_mean(gains(*table_and_names, **names))
