"""Pictures of scores: before against after, by jitter, by clicks; promised IoU against measured.

Every function takes any number of models; the colours of `zero-shot` and `tuned` are those of all the series.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from medsam_helpers.errors import ConfigError, DataError, ShapeError
from medsam_helpers.evaluation.intervals import Interval, mean_interval
from medsam_helpers.evaluation.predictors import BASELINES
from medsam_helpers.evaluation.tables import paired_gain
from medsam_helpers.figures.cases import COLORS
from medsam_helpers.prompts import read_prompt

_STYLES: dict[str, dict[str, Any]] = {
    "box": {"color": "#999999", "linestyle": ":", "marker": "s"},
    "ellipse": {"color": "#666666", "linestyle": "-.", "marker": "D"},
    "zero-shot": {"color": COLORS["zero-shot"], "linestyle": "--", "marker": "o"},
    "tuned": {"color": COLORS["tuned"], "linestyle": "-", "marker": "^"},
}
_FURTHER = [
    {"color": color, "linestyle": "-", "marker": marker}
    for color, marker in (("#CC79A7", "v"), ("#009E73", "P"), ("#D55E00", "X"), ("#56B4E9", "*"))
]


def model_styles(models: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour, line and marker of each model; others than the series' own take free colours, or are a `ConfigError`."""
    unknown = [model for model in models if model not in _STYLES]
    if len(unknown) > len(_FURTHER):
        raise ConfigError(f"{len(unknown)} models have no colour of their own: draw at most {len(_FURTHER)} at once")
    styles = _STYLES | dict(zip(unknown, _FURTHER, strict=False))
    return {model: styles[model] for model in models}


def before_after_scatter(
    ax: Axes, table: pd.DataFrame, prompt: str, model: str = "tuned", base: str = "zero-shot"
) -> Axes:
    """The axes with a point a case: its Dice of base and model, for one prompt of a table that `evaluate` gave."""
    by_case = table[table["prompt"] == prompt].pivot_table(index="case", columns="model", values="dice")
    gained = by_case[model] > by_case[base]
    for rows, of, said in ((by_case[gained], "tuned", "gained"), (by_case[~gained], "zero-shot", "did not gain")):
        style = {key: _STYLES[of][key] for key in ("color", "marker")}
        ax.scatter(rows[base], rows[model], s=22, label=f"{said}: {len(rows)}", **style)
    low = float(by_case[[base, model]].min().min())
    ends = [low - 0.05 * (1 - low), 1 + 0.02 * (1 - low)]
    ax.plot(ends, ends, color="black", linewidth=1, linestyle=":")
    ax.set(xlim=ends, ylim=ends, aspect="equal")
    ax.set_xlabel(f"Dice, {base}", parse_math=False)  # a run's name may hold dollar signs
    ax.set_ylabel(f"Dice, {model}", parse_math=False)
    ax.legend(frameon=False, fontsize=8, loc="lower right")
    return ax


def comparison_figure(table: pd.DataFrame) -> Figure:
    """The figure of a table of `read_runs`: each run's Dice over the first one's, a row a prompt, a column a run."""
    first, *others = table["model"].unique()
    prompts = table["prompt"].unique()
    figure = Figure(figsize=(3.6 * len(others), 3.8 * len(prompts)), layout="constrained")
    for axes, prompt in zip(figure.subplots(len(prompts), len(others), squeeze=False), prompts, strict=True):
        for ax, other in zip(axes, others, strict=True):
            gain = paired_gain(table, prompt, other, first)
            before_after_scatter(ax, table, prompt, other, first)
            ax.set_title(f"{prompt}: {gain.text('+.3f')}", fontsize=9)
    return figure


def jitter_curve(ax: Axes, table: pd.DataFrame) -> Axes:
    """The axes with the mean Dice by jitter of the box, a line a model, of a table that `evaluate` gave."""
    label = "jitter: sides move by up to N pixels of a model space of 1024"
    plain = table[~table["prompt"].str.endswith("+centre")]
    return _curve(ax, plain, plain["prompt"].map(lambda prompt: read_prompt(prompt).jitter_1024), label)


def click_curve(ax: Axes, table: pd.DataFrame) -> Axes:
    """The axes with the mean Dice after each click, a line a model, of a table that `evaluate` gave for "clicks:N"."""
    return _curve(ax, table, table["prompt"].map(lambda prompt: read_prompt(prompt).clicks or None), "clicks")


def _curve(ax: Axes, table: pd.DataFrame, x: pd.Series, label: str) -> Axes:
    """Mean Dice by x, where it is known. The bands are 95 % intervals; the baselines have none."""
    rows = table.assign(x=x).dropna(subset="x")
    for model, style in model_styles(rows["model"].unique()).items():
        scores = rows[rows["model"] == model].groupby("x")["dice"]
        means = pd.DataFrame([(at, *mean_interval(dice)[:3]) for at, dice in scores])
        at, mean, low, high = means.to_numpy().T
        ax.plot(at, mean, label=model, markersize=5, **style)
        if model not in BASELINES:
            ax.fill_between(at, low, high, color=style["color"], alpha=0.15, linewidth=0)
    ax.set(xlabel=label, ylabel="mean Dice")
    ax.legend(frameon=False, fontsize=8)
    return ax


def differences(ax: Axes, intervals: Mapping[str, Interval], color: str = COLORS["tuned"]) -> Axes:
    """The axes with a row a comparison: mean and interval; grey and hollow where the interval holds zero."""
    for place, (mean, low, high) in enumerate(intervals.values()):
        clear = not low <= 0 <= high
        face, edge = (color, color) if clear else ("white", "#777777")
        error = [[mean - low], [high - mean]]
        ax.errorbar(mean, place, xerr=error, fmt="o", capsize=3, color=edge, markerfacecolor=face, markersize=5)
    ax.axvline(0, color="black", linewidth=1, linestyle=":")
    ax.set_yticks(range(len(intervals)), list(intervals), fontsize=8)
    ax.locator_params(axis="x", nbins=5)
    ax.set_ylim(len(intervals) - 0.5, -0.5)  # and not inverted: panels that share the axis would turn it back
    return ax


def paired(first: ArrayLike, second: ArrayLike) -> np.ndarray:
    """(2, N) float64 of two lists; `ShapeError` where they are not two of one length."""
    one, other = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if one.shape != other.shape or one.ndim != 1:
        raise ShapeError(f"this needs two lists of one length, got shapes {one.shape} and {other.shape}")
    return np.stack([one, other])


def calibration_table(score: ArrayLike, truth: ArrayLike, groups: int = 5) -> pd.DataFrame:
    """A model's own guess of its IoU (N,) beside the measured one (N,), in groups of equal size, in order of the guess.

    Returns:
        One row a group: `n`, mean `score`, mean `truth` with its 95 % interval `low` to `high` (NaN below five cases),
        and `gap` (score minus truth; above 0 is overconfident).
    Raises:
        ShapeError: not two lists of one length.
        DataError: no case, or a value that is not finite.
    """
    pairs = paired(score, truth)
    if pairs.size == 0 or not np.isfinite(pairs).all():
        raise DataError("calibration needs a finite score and a finite truth for each case (baselines have no score)")
    parts = np.array_split(np.argsort(pairs[0], kind="stable"), min(groups, pairs.shape[1]))
    rows = [[len(part), pairs[0, part].mean(), *mean_interval(pairs[1, part])] for part in parts]
    table = pd.DataFrame(rows, columns=["n", "score", "truth", "low", "high"])
    return table.assign(gap=table["score"] - table["truth"])


def reliability(ax: Axes, calibrations: Mapping[str, pd.DataFrame]) -> Axes:
    """The axes with measured IoU over promised IoU, a line a model; under the diagonal the promise is too high.

    The bars are the intervals in each model's `calibration_table`.
    """
    low = pd.concat(calibrations.values())[["score", "low"]].min(axis=None) - 0.03
    ax.plot([low, 1], [low, 1], color="black", linewidth=1, linestyle=":", label="promise kept")
    for model, style in model_styles(list(calibrations)).items():
        table = calibrations[model]
        error = [table["truth"] - table["low"], table["high"] - table["truth"]]
        ax.errorbar(table["score"], table["truth"], error, label=model, markersize=6, elinewidth=0.8, **style)
    ax.set(xlim=(low, 1), ylim=(low, 1), aspect="equal", xlabel="IoU promised (mean of group)", ylabel="IoU measured")
    ax.legend(frameon=False, fontsize=8)
    return ax
