"""The table of scores, one row a case, model and prompt: its means with intervals, paired gains, its file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from medsam_helpers.errors import ConfigError, DataError
from medsam_helpers.files import atomic_write

METRICS = ["dice", "iou", "hd95_percent", "nsd"]
COLUMNS = ["case", "model", "prompt", "seed", *METRICS, "area_true", "area_pred", "iou_score"]


class Interval(NamedTuple):
    """A mean with its bootstrap interval.

    >>> str(Interval(0.021, 0.014, 0.029))
    '0.021 [0.014, 0.029]'
    """

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap_mean(values: ArrayLike, *, seed: int = 0, n: int = 10_000) -> Interval:
    """Mean of `values` with its 95 % percentile bootstrap interval; of equal values, or a single one, without width.

    Args:
        values: (N,) float, one a case.
        seed: of the resampling.
        n: number of resamples.
    Raises:
        DataError: no values, or one that is not finite.
    """
    values = np.asarray(values, np.float64)
    if values.size == 0 or not np.isfinite(values).all():
        raise DataError(f"a mean needs finite values: of {values.size}, {np.isfinite(values).sum()} are finite")
    mean = float(values.mean())
    if np.ptp(values) == 0:
        return Interval(mean, mean, mean)
    how = {"n_resamples": n, "batch": 1000, "method": "percentile"}  # batch bounds memory
    low, high = stats.bootstrap((values,), np.mean, **how, rng=np.random.default_rng(seed)).confidence_interval
    return Interval(mean, float(low), float(high))


def paired_gain(
    table: pd.DataFrame, prompt: str, model: str = "tuned", base: str = "zero-shot", metric: str = "dice"
) -> Interval:
    """Mean over cases of `model` minus `base` on the same case and prompt, with its 95 % bootstrap interval.

    Args:
        table: as `evaluate` gives it; `prompt`, `model` and `base` are in it.
        metric: one of `METRICS`.
    Raises:
        ConfigError: the table has no such model, prompt or metric; the message lists those it has.
        DataError: a case was scored for one of the two only.
    """
    check_name("prompt", prompt, table["prompt"])
    check_name("model", model, table["model"])
    check_name("model", base, table["model"])
    check_name("metric", metric, METRICS)
    rows = table[(table["prompt"] == prompt) & table["model"].isin([model, base])]
    by_case = rows.pivot_table(index="case", columns="model", values=metric).reindex(columns=[model, base])
    if alone := list(by_case.index[by_case.isna().any(axis=1)]):
        raise DataError(f"scored for one of {model} and {base} only: {', '.join(alone)}; evaluate both on these cases")
    return bootstrap_mean(by_case[model] - by_case[base])


def check_name(what: str, name: str, known: Iterable[str]) -> None:
    """Raise a `ConfigError` that lists the known names where `name` is none of them."""
    if name not in (names := list(dict.fromkeys(known))):
        raise ConfigError(f"{what} {name!r} is unknown: use one of {', '.join(names)}")


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Table of means over cases, a row a model and prompt in the table's order; seeds are averaged by case first.

    Returns:
        Columns `model, prompt, n, dice, dice_low, dice_high, iou, hd95_percent, nsd`; n counts cases, low and high are
        the 95 % bootstrap interval of the mean Dice.
    """
    rows = []
    for (model, prompt), group in table.groupby(["model", "prompt"], sort=False):
        by_case = group.groupby("case")[METRICS].mean()
        mean, low, high = bootstrap_mean(by_case["dice"])
        row = {"model": model, "prompt": prompt, "n": len(by_case), "dice": mean, "dice_low": low, "dice_high": high}
        rows.append(row | by_case[METRICS[1:]].mean().to_dict())
    return pd.DataFrame(rows, columns=["model", "prompt", "n", "dice", "dice_low", "dice_high", *METRICS[1:]])


def write_table(table: pd.DataFrame, path: str | Path) -> None:
    """The table as a CSV file, whole or not at all, six decimals, so that equal runs write equal files."""
    with atomic_write(path) as temporary:
        table.to_csv(temporary, columns=COLUMNS, index=False, float_format="%.6f", lineterminator="\n")


def read_table(path: str | Path) -> pd.DataFrame:
    """A table that `write_table` wrote. Names stay text, "007" and "NA" too.

    Raises:
        DataError: no such file, not a CSV, or a column is missing.
    """
    text = dict.fromkeys(["case", "model", "prompt"], str)
    try:
        table = pd.read_csv(path, dtype=text, keep_default_na=False, na_values={"iou_score": [""]})
        if missing := [column for column in COLUMNS if column not in table]:
            raise DataError(f"{path} lacks the column(s) {', '.join(missing)}: a table of scores has {COLUMNS}")
        return table[COLUMNS].astype(dict.fromkeys([*METRICS, "iou_score"], float))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a table of scores: {error}") from error
