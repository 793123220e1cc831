"""Recorded runs side by side: a record's table with each run as a model of its own."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from medsam_helpers.errors import DataError
from medsam_helpers.evaluation.evaluate import WITH_TTA
from medsam_helpers.evaluation.intervals import Method
from medsam_helpers.evaluation.tables import COLUMNS, METRICS, paired_gain, read_table, summarise
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


def comparison_table(table: pd.DataFrame, prompt: str, base: str, method: Method = "percentile") -> pd.DataFrame:
    """Table of every model's means with one prompt, and its paired difference in Dice to `base`.

    Args:
        table: see `runs_as_models`.
        prompt: one of the table's prompts.
        base: the model that the others are compared with.
        method: of the interval, see `mean_interval`; the default is that of the records, "t" covers better.
    Returns:
        A row a model: the means of `METRICS`, and "Dice minus BASE", text with its 95 % interval, empty for the base
        itself.
    Raises:
        ConfigError: the table has no such prompt or model.
        DataError: a case was scored for one of two models only.
    """
    means = summarise(table[table["prompt"] == prompt], method).set_index("model")[["n", *METRICS]]
    gains = {
        model: "" if model == base else str(paired_gain(table, prompt, model, base, method=method))
        for model in means.index
    }
    return means.assign(**{f"Dice minus {base}": pd.Series(gains)})
