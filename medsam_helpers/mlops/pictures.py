"""The pipeline drawn: where a model comes from, and what a sweep found. Returns Axes, shows nothing."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import matplotlib
import numpy as np
import optuna
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.text import Text
from matplotlib.ticker import NullFormatter
from mlflow.entities import Run

from medsam_helpers.figures.cases import COLORS
from medsam_helpers.mlops.lineage import Origin
from medsam_helpers.mlops.trials import SPACE, study_of

_VISIBLE_BLUES = ListedColormap(matplotlib.colormaps["Blues"](np.linspace(0.3, 1, 128)))
"""Without its light end, which cannot be seen on white."""
_KINDS = {"data": "#009E73", "code": "#999999", "run": COLORS["tuned"], "model": COLORS["zero-shot"]}


def draw_lineage(ax: Axes, origin: Origin, others: Sequence[Run] = ()) -> Axes:
    """Data and code on the left, the run they made, and what came of it; time goes from left to right.

    Args:
        ax: drawn into.
        origin: of a model's version.
        others: further runs that used the same training data; drawn pale beside the run.
    """
    left = [
        ("data", f"{purpose}: {about['cases']} cases\n{about['name']}\n{about['digest'][:12]}")
        for purpose, about in origin.datasets.items()
    ] + [("code", f"code\n{origin.commit[:12]}")]
    middle = [("run", f"run\n{origin.run_name}\n{origin.run_id[:12]}")]
    aliases = ", ".join(f"@{alias}" for alias in origin.aliases) or "no alias"
    right = [("model", f"{origin.name}\nversion {origin.version}\n{aliases}")]
    right += [("run", f"evaluation\n{run_id[:12]}") for run_id in origin.evaluations]
    also = [run for run in others if run.info.run_id != origin.run_id][:3]
    pale = [("run", f"{run.info.run_name}\n{run.info.run_id[:12]}") for run in also]

    boxes = {}
    for x, column in ((0, left), (1, middle), (2, right)):
        for index, (kind, text) in enumerate(column):
            boxes[x, index] = _box(ax, (x, 1 - (index + 0.5) / len(column)), kind, text)
    for start in range(len(left)):
        _arrow(ax, boxes[0, start], boxes[1, 0])
    for end in range(len(right)):
        _arrow(ax, boxes[1, 0], boxes[2, end])
    for index, (kind, text) in enumerate(pale):
        _arrow(ax, boxes[0, 0], _box(ax, (1, -0.18 - 0.22 * index), kind, text, alpha=0.4), alpha=0.25)
    lowest = -0.3 - 0.22 * (len(pale) - 1) if pale else 0
    ax.set(xlim=(-0.45, 2.45), ylim=(lowest, 1))
    ax.set_axis_off()
    return ax


def _box(ax: Axes, place: tuple[float, float], kind: str, text: str, alpha: float = 1) -> Text:
    frame = {"boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": _KINDS[kind], "linewidth": 2}
    return ax.text(*place, text, ha="center", va="center", fontsize=8, bbox=frame, alpha=alpha, zorder=3)


def _arrow(ax: Axes, start: Text, end: Text, alpha: float = 1) -> None:
    ends = {"patchA": start.get_bbox_patch(), "patchB": end.get_bbox_patch(), "shrinkA": 2, "shrinkB": 2}
    style = {"arrowstyle": "-|>", "color": "#666666", "alpha": alpha, **ends}
    ax.annotate("", end.get_position(), start.get_position(), arrowprops=style, zorder=2)


def draw_history(ax: Axes, table: pd.DataFrame) -> Axes:
    """Dev Dice of each trial in the order they were asked for, and the best so far.

    Args:
        ax: drawn into.
        table: of `sweeps.trials_table`.
    """
    rows = table[table["state"].isin(["complete", "pruned"])].sort_values("trial")
    for state, marker, color in (("complete", "o", COLORS["tuned"]), ("pruned", "x", "#999999")):
        part = rows[rows["state"] == state]
        ax.scatter(part["trial"], part["dev_dice"], marker=marker, color=color, label=f"{state}: {len(part)}")
    complete = rows[rows["state"] == "complete"]
    ax.step(complete["trial"], complete["dev_dice"].cummax(), where="post", color="black", linewidth=1, label="best")
    ax.set(xlabel="trial", ylabel="dev Dice")
    ax.legend(frameon=False, fontsize=8)
    return ax


def draw_importances(ax: Axes, table: pd.DataFrame) -> Axes:
    """How much of the difference between good and bad trials each setting explains, most important on top.

    By dev Dice after the first epoch, which every trial has; among those that were let finish, the settings that
    decided are all alike.

    Args:
        ax: drawn into.
        table: of `sweeps.trials_table`.
    Source: Watanabe et al., PED-ANOVA, IJCAI 2023, as Optuna computes it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        shares = optuna.importance.get_param_importances(study_of(table, first_epoch=True), evaluator=evaluator)
    names = list(shares)[::-1]
    ax.barh(names, [shares[name] for name in names], color=COLORS["tuned"])
    ax.set(xlabel="importance", xlim=(0, 1))
    return ax


def draw_parallel_coordinates(table: pd.DataFrame) -> Axes:
    """Each trial as a line through its settings, dark where dev Dice is high after one epoch; on a new figure.

    Args:
        table: of `sweeps.trials_table`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental, and a setting that all trials share
        study = study_of(table, first_epoch=True)
        ax = optuna.visualization.matplotlib.plot_parallel_coordinate(
            study, params=list(SPACE), target=lambda trial: trial.value, target_name="dev Dice, epoch 1"
        )
    for lines in ax.collections:  # Optuna draws a target of one's own as if less were better
        lines.set_cmap(_VISIBLE_BLUES)
    for axis in (each.yaxis for each in ax.figure.axes):
        axis.set_minor_formatter(NullFormatter())  # on a log scale the small ticks' labels would cover one another
        for label in axis.get_ticklabels():
            label.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1})
    return ax
