"""The table of scores, one row a case, model and prompt: means with intervals, paired gains, by kind of lesion."""

import pandas as pd

from medsam_helpers.errors import ConfigError, DataError, check_known
from medsam_helpers.evaluation.intervals import Interval, mean_interval

METRICS = ["dice", "iou", "hd95_percent", "nsd"]
GROUP = "group"  # column of the patient or video that a case is of, where that is known
COLUMNS = ["case", "model", "prompt", "seed", *METRICS, "area_true", "area_pred", "iou_score"]


def paired_gain(
    table: pd.DataFrame, prompt: str, model: str = "tuned", base: str = "zero-shot", metric: str = "dice"
) -> Interval:
    """Mean of the `gains` with its 95 % interval, see `mean_interval`; arguments and errors as of `gains`.

    Where the table has a column `group`, the spread is that between groups.
    """
    differences = gains(table, prompt, model, base, metric)
    return mean_interval(differences, "t", groups=groups_in(table, differences.index))


def gains(
    table: pd.DataFrame, prompt: str, model: str = "tuned", base: str = "zero-shot", metric: str = "dice"
) -> pd.Series:
    """By case, of a table that `evaluate` gave, the score of `model` minus that of `base`, seeds averaged first.

    Raises:
        ConfigError: the table has no such model, prompt or metric; the message lists those it has.
        DataError: a case was scored for one of the two only.
    """
    check_known("prompt", prompt, table["prompt"])
    check_known("model", model, table["model"])
    check_known("model", base, table["model"])
    check_known("metric", metric, METRICS)
    rows = table[(table["prompt"] == prompt) & table["model"].isin([model, base])]
    by_case = rows.pivot_table(index="case", columns="model", values=metric).reindex(columns=[model, base])
    if alone := list(by_case.index[by_case.isna().any(axis=1)]):
        raise DataError(f"scored for one of {model} and {base} only: {', '.join(alone)}; evaluate both on these cases")
    return by_case[model] - by_case[base]


def groups_in(table: pd.DataFrame, cases: pd.Index) -> list[str] | None:
    """The group of each case, where the table knows it."""
    return table.groupby("case")[GROUP].first().loc[cases].tolist() if GROUP in table else None


def pooled_dice(rows: pd.DataFrame) -> float:
    """Dice over the pixels of all rows together, as some publications give it: large lesions count for more.

    >>> round(pooled_dice(pd.DataFrame({"dice": [1, 0.5], "area_true": [300, 10], "area_pred": [300, 10]})), 3)
    0.984
    """
    areas = rows["area_true"] + rows["area_pred"]
    return float((rows["dice"] * areas).sum() / areas.sum())  # a row's Dice times its areas is twice the intersection


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Table of means over cases, a row a model and prompt in the table's order; seeds are averaged by case first.

    Args:
        table: as `evaluate` gives it; for a column `group` see `paired_gain`.
    Returns:
        Columns `model, prompt, n, dice, dice_low, dice_high, iou, hd95_percent, nsd`; n counts cases, low and high are
        the 95 % interval of the mean Dice, NaN below five cases.
    """
    rows = []
    for (model, prompt), part in table.groupby(["model", "prompt"], sort=False):
        by_case = part.groupby("case")[METRICS].mean()
        mean, low, high = mean_interval(by_case["dice"], groups=groups_in(part, by_case.index))
        row = {"model": model, "prompt": prompt, "n": len(by_case), "dice": mean, "dice_low": low, "dice_high": high}
        rows.append(row | by_case[METRICS[1:]].mean().to_dict())
    return pd.DataFrame(rows, columns=["model", "prompt", "n", "dice", "dice_low", "dice_high", *METRICS[1:]])


def clicks_needed(table: pd.DataFrame, model: str, metric: str = "dice") -> pd.Series:
    """By case how many clicks a model needs until its score is 0.9; the most that were tried where it never is.

    The table is as `evaluate` gives it for a prompt "clicks:N"; `ConfigError` where it lacks clicks, or the model. The
    literature's NoC@90 is by the metric "iou", with 20 clicks.
    """
    check_known("model", model, table["model"])
    clicked = table[table["prompt"].str.startswith("clicks:")]
    clicks = clicked["prompt"].str.removeprefix("clicks:").astype(int)
    rows = clicked[clicked["model"] == model]
    if rows.empty:
        raise ConfigError(f"{model} was not scored with clicks: evaluate it with the prompt clicks:8")
    return clicks[rows.index].where(rows[metric] >= 0.9, clicks.max()).groupby(rows["case"]).min()
