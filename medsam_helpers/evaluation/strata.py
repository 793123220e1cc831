"""Scores by kind of lesion: its size, its contrast at the edge, how many there are."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from medsam_helpers.data.case import Case
from medsam_helpers.data.describe import describe_case
from medsam_helpers.errors import DataError
from medsam_helpers.evaluation.intervals import mean_interval
from medsam_helpers.evaluation.tables import check_name


def lesion_features(cases: Iterable[Case]) -> pd.DataFrame:
    """Table of what `describe_case` says of each case with a lesion: a column `case`, its columns, and `contrast`."""
    return with_contrast(pd.DataFrame({"case": case.name} | describe_case(case) for case in cases if case.mask.any()))


def with_contrast(described: pd.DataFrame) -> pd.DataFrame:
    """The table with the column `contrast`: how far lesion and rim lie apart, in gray values, whichever is brighter."""
    return described.assign(contrast=(described["lesion_gray"] - described["rim_gray"]).abs())


def scores_by(
    table: pd.DataFrame, features: pd.DataFrame, feature: str, prompt: str, *, groups: int = 3
) -> pd.DataFrame:
    """Table of mean Dice by model and group of cases, the groups cut along one feature.

    Args:
        table: as `evaluate` gives it, any number of models.
        features: as `lesion_features` gives them, of all the table's cases; more cases do no harm.
        feature: one of their columns.
        prompt: one of the table's prompts.
        groups: into how many, of as many cases each, ties together.
    Returns:
        One row a group and model: `group` (its number from 0), `from`, `to` (least and largest value of the feature
        in it), `model`, `n` cases, `mean` and its 95 % interval (NaN below five cases) `low`, `high`.
    Raises:
        ConfigError: no such feature or prompt.
        DataError: a case of the table has no features.
    """
    check_name("feature", feature, [column for column in features if column != "case"])
    check_name("prompt", prompt, table["prompt"])
    rows = table[table["prompt"] == prompt]
    by_case = rows.groupby(["model", "case"], sort=False)["dice"].mean().unstack("model", sort=False)
    value = features.set_index("case")[feature].reindex(by_case.index).astype(float)
    if missing := sorted(value.index[~value.index.isin(features["case"])]):
        raise DataError(f"no features of {', '.join(missing[:5])}: describe the cases that were scored")
    number = pd.qcut(value, groups, labels=False, duplicates="drop")
    found = []
    for group in sorted(number.dropna().unique()):
        values = value[number == group]
        for model in by_case:
            scored = by_case.loc[values.index, model].dropna()
            if len(scored):
                mean = mean_interval(np.asarray(scored))
                found.append([int(group), values.min(), values.max(), model, len(scored), *mean])
    return pd.DataFrame(found, columns=["group", "from", "to", "model", "n", "mean", "low", "high"])
