"""The table of scores, one row a case, model and prompt: means with intervals, paired gains, by kind of lesion."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from medsam_helpers.errors import ConfigError, DataError
from medsam_helpers.evaluation.intervals import Interval, Method, mean_interval
from medsam_helpers.files import atomic_write

METRICS = ["dice", "iou", "hd95_percent", "nsd"]
GROUP = "group"  # column of the patient or video that a case is of, where that is known
COLUMNS = ["case", "model", "prompt", "seed", *METRICS, "area_true", "area_pred", "iou_score"]


def paired_gain(
    table: pd.DataFrame,
    prompt: str,
    model: str = "tuned",
    base: str = "zero-shot",
    metric: str = "dice",
    *,
    method: Method = "t",
) -> Interval:
    """Mean over cases of `model` minus `base` on the same case and prompt, seeds averaged first, with its interval.

    Args:
        table: as `evaluate` gives it; `prompt`, `model` and `base` are in it. Where it has a column `group`, the spread
            is that between groups.
        metric: one of `METRICS`.
        method: of the 95 % interval, see `mean_interval`; "percentile" gives those that the records were written with.
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
    gains = by_case[model] - by_case[base]
    return mean_interval(gains, method, groups=_groups_of(gains.index, table, method))


def _groups_of(cases: pd.Index, table: pd.DataFrame, method: Method) -> list[str] | None:
    if GROUP not in table or method == "percentile":  # the bootstrap of the records knows no groups
        return None
    return table.groupby("case")[GROUP].first().loc[cases].tolist()


def pooled_dice(rows: pd.DataFrame) -> float:
    """Dice over the pixels of all rows together, as some publications give it: large lesions count for more.

    >>> round(pooled_dice(pd.DataFrame({"dice": [1, 0.5], "area_true": [300, 10], "area_pred": [300, 10]})), 3)
    0.984
    """
    areas = rows["area_true"] + rows["area_pred"]
    return float((rows["dice"] * areas).sum() / areas.sum())  # a row's Dice times its areas is twice the intersection


def check_name(what: str, name: str, known: Iterable[str]) -> None:
    """Raise a `ConfigError` that lists the known names where `name` is none of them."""
    if name not in (names := list(dict.fromkeys(known))):
        raise ConfigError(f"{what} {name!r} is unknown: use one of {', '.join(names)}")


def summarise(table: pd.DataFrame, method: Method = "logit-t") -> pd.DataFrame:
    """Table of means over cases, a row a model and prompt in the table's order; seeds are averaged by case first.

    Args:
        table: as `evaluate` gives it; for a column `group` see `paired_gain`.
        method: of the interval, see `mean_interval`; "percentile" is that of the records.
    Returns:
        Columns `model, prompt, n, dice, dice_low, dice_high, iou, hd95_percent, nsd`; n counts cases, low and high are
        the 95 % interval of the mean Dice, NaN below five cases.
    """
    rows = []
    for (model, prompt), part in table.groupby(["model", "prompt"], sort=False):
        by_case = part.groupby("case")[METRICS].mean()
        mean, low, high = mean_interval(by_case["dice"], method, groups=_groups_of(by_case.index, part, method))
        row = {"model": model, "prompt": prompt, "n": len(by_case), "dice": mean, "dice_low": low, "dice_high": high}
        rows.append(row | by_case[METRICS[1:]].mean().to_dict())
    return pd.DataFrame(rows, columns=["model", "prompt", "n", "dice", "dice_low", "dice_high", *METRICS[1:]])


def clicks_needed(table: pd.DataFrame, model: str, metric: str = "dice", least: float = 0.9) -> pd.Series:
    """By case how many clicks a model needs until its score is at least this; the most that were tried where it fails.

    Args:
        table: as `evaluate` gives it for a prompt "clicks:N".
        metric: "dice"; the literature's NoC@90 is by "iou", with 20 clicks.
    Raises:
        ConfigError: the table has no such model, or no clicks.
    """
    check_name("model", model, table["model"])
    rows = table[(table["model"] == model) & table["prompt"].str.startswith("clicks:")]
    if rows.empty:
        raise ConfigError(f"{model} was not scored with clicks: evaluate it with the prompt clicks:8")
    clicks = rows["prompt"].str.removeprefix("clicks:").astype(int)
    return clicks.where(rows[metric] >= least, clicks.max()).groupby(rows["case"]).min()


def click_figures(table: pd.DataFrame, model: str) -> dict[str, Any]:
    """For a card: mean Dice after each click, and the mean clicks to Dice 0.90, with its interval, and to IoU 0.90.

    Keys `dice_by_click`, `clicks_to_90`, `clicks_to_90_ci95` and `clicks_to_90_iou`; `click_failures` counts the cases
    that never reach the Dice and so count as the most clicks. Arguments and errors as for `clicks_needed`.
    """
    needed = clicks_needed(table, model)
    rows = table[(table["model"] == model) & table["prompt"].str.startswith("clicks:")]
    mean, *ends = mean_interval(needed, "t", groups=_groups_of(needed.index, table, "t")).for_json()
    return {
        "dice_by_click": rows.groupby("prompt", sort=False)["dice"].mean().round(6).tolist(),
        "clicks_to_90": mean,
        "clicks_to_90_ci95": ends,
        "clicks_to_90_iou": round(float(clicks_needed(table, model, "iou").mean()), 6),
        "click_failures": int((rows.groupby("case")["dice"].max() < 0.9).sum()),
    }


def write_table(table: pd.DataFrame, path: str | Path) -> None:
    """The table as a CSV file, whole or not at all, six decimals, so that equal runs write equal files."""
    with atomic_write(path) as temporary:
        columns = [*COLUMNS, *table.columns.intersection([GROUP])]
        # A cell that begins so is a formula to a spreadsheet, unless an apostrophe stands before it.
        safe = table.assign(case=table["case"].str.replace(r"^(?=[=+\-@'])", "'", regex=True))
        safe.to_csv(temporary, columns=columns, index=False, float_format="%.6f", lineterminator="\n")


def read_table(path: str | Path) -> pd.DataFrame:
    """A table that `write_table` wrote. Names stay text, "007" and "NA" too.

    Raises:
        DataError: no such file, not a CSV, or a column is missing.
    """
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
