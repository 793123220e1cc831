"""The pipeline drawn: where a model comes from, and what a sweep found. Returns Axes, shows nothing."""

import warnings

import optuna
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.text import Text
from matplotlib.ticker import NullFormatter
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from medsam_helpers.figures.cases import COLORS
from medsam_helpers.mlops.lineage import Origin
from medsam_helpers.mlops.trials import SPACE, study_of

_KINDS = {"data": "#009E73", "code": "#999999", "run": COLORS["tuned"], "model": COLORS["zero-shot"]}


def draw_lineage(ax: Axes, origin: Origin) -> Axes:
    """Axes with data and code on the left, the run that they made, and on the right what came of it."""
    used = origin.datasets.items()
    left = [("data", f"{what}: {of['cases']} cases\n{of['name']}\n{of['digest'][:12]}") for what, of in used]
    left += [("code", f"code\n{origin.commit[:12]}")]
    aliases = ", ".join(f"@{alias}" for alias in origin.model.aliases)
    right = [("model", f"{origin.model.name}\nversion {origin.model.version}\n{aliases}")]
    right += [("run", f"evaluation\n{scored.info.run_id[:12]}") for scored in origin.evaluations]

    run = _box(ax, (1, 0.5), "run", f"run\n{origin.run.info.run_name}\n{origin.run.info.run_id[:12]}")
    for x, column in ((0, left), (2, right)):
        for index, (kind, text) in enumerate(column):
            box = _box(ax, (x, 1 - (index + 0.5) / len(column)), kind, text)
            start, end = (box, run) if x == 0 else (run, box)
            ends = {"patchA": start.get_bbox_patch(), "patchB": end.get_bbox_patch(), "shrinkA": 2, "shrinkB": 2}
            style = {"arrowstyle": "-|>", "color": "#666666", **ends}
            ax.annotate("", end.get_position(), start.get_position(), arrowprops=style, zorder=2)
    ax.set(xlim=(-0.45, 2.45), ylim=(0, 1))
    ax.set_axis_off()
    return ax


def _box(ax: Axes, place: tuple[float, float], kind: str, text: str) -> Text:
    edge = {"boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": _KINDS[kind], "linewidth": 2}
    return ax.text(*place, text, ha="center", va="center", fontsize=8, bbox=edge, zorder=3)


def draw_history(ax: Axes, table: pd.DataFrame) -> Axes:
    """Axes with the dev Dice of each trial of `trials_table`, finished or pruned (which Optuna omits), and the best."""
    rows = table.sort_values("trial")
    for state, marker, color in (("complete", "o", COLORS["tuned"]), ("pruned", "x", "#999999")):
        part = rows[rows["state"] == state]
        ax.scatter(part["trial"], part["dev_dice"], marker=marker, color=color, label=f"{state}: {len(part)}")
    complete = rows[rows["state"] == "complete"]
    ax.step(complete["trial"], complete["dev_dice"].cummax(), where="post", color="black", linewidth=1, label="best")
    ax.set(xlabel="trial", ylabel="dev Dice")
    ax.legend(frameon=False, fontsize=8)
    return ax


def draw_importances(ax: Axes, table: pd.DataFrame) -> Axes:
    """Axes with the share of the difference in dev Dice after an epoch that each setting explains, largest on top.

    Source: Watanabe et al., PED-ANOVA, IJCAI 2023, as Optuna computes it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        shares = get_param_importances(study_of(table), evaluator=PedAnovaImportanceEvaluator())
    ax.barh(list(shares)[::-1], list(shares.values())[::-1], color=COLORS["tuned"])
    ax.set(xlabel="importance", xlim=(0, 1))
    return ax


def draw_parallel_coordinates(table: pd.DataFrame) -> Axes:
    """Optuna's parallel coordinates of `trials_table`, a line a trial, dark where dev Dice is high after one epoch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental, and a setting that all trials share
        plot = optuna.visualization.matplotlib.plot_parallel_coordinate
        ax = plot(study_of(table), list(SPACE), target_name="dev Dice, epoch 1")
    for lines in ax.collections:  # Optuna's own colours are too pale where Dice is low
        lines.set_cmap("viridis_r")
    for each in ax.figure.axes:
        each.yaxis.set_minor_formatter(NullFormatter())  # on a log scale they would cover one another
        for label in each.yaxis.get_ticklabels():
            label.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1})
    return ax
