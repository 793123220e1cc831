"""The pipeline drawn: where a model comes from, and what a sweep found. Returns Axes, shows nothing."""

import warnings

import optuna
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.text import OffsetFrom, Text
from matplotlib.ticker import LogLocator
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from medsam_helpers.figures.cases import COLORS
from medsam_helpers.mlops.lineage import Origin, datasets_of
from medsam_helpers.mlops.trials import SPACE, study_of

_KINDS = {"data": "#009E73", "code": "#999999", "run": COLORS["tuned"], "model": COLORS["zero-shot"]}


def draw_lineage(ax: Axes, origin: Origin) -> Axes:
    """Axes with data and code on the left, the run that they made, and on the right what came of it, scores of what."""
    used = {of["digest"]: f"{what}: {of['cases']} cases\n{of['name']}" for what, of in origin.datasets.items()}
    aliases = ", ".join(f"@{alias}" for alias in origin.model.aliases)
    model = ("model", f"{origin.model.name}\nversion {origin.model.version}\n{aliases}")
    scored = [("run", f"evaluation\n{each.info.run_id[:12]}") for each in origin.evaluations]
    data = [("data", f"{text}\n{digest[:12]}") for digest, text in used.items()]
    left = _boxes(ax, 0, [*data, ("code", f"code\n{origin.commit[:12]}")])
    (run,) = _boxes(ax, 1, [("run", f"run\n{origin.run.info.run_name}\n{origin.run.info.run_id[:12]}")])
    right = _boxes(ax, 2, [model, *scored])
    arrows = [(box, run, 0.0) for box in left] + [(run, box, 0.0) for box in right]
    for box, each in zip(right[1:], origin.evaluations, strict=True):
        known = [of["digest"] for of in datasets_of(each).values() if of["digest"] in used]
        arrows += [(left[list(used).index(digest)], box, 0.25) for digest in known]
    for start, end, bend in arrows:  # from edge to edge, wherever the layout moves them
        to, since = OffsetFrom(end, (0, 0.5)), OffsetFrom(start, (1, 0.5))
        style = {"arrowstyle": "-|>", "color": "#666666", "connectionstyle": f"arc3,rad={bend}"}
        ax.annotate("", (-4, 0), (4, 0), to, since, arrowprops=style, zorder=2)
    ax.set(xlim=(-0.45, 2.45), ylim=(0, 1))
    ax.set_axis_off()
    return ax


def _boxes(ax: Axes, x: float, column: list[tuple[str, str]]) -> list[Text]:
    shown = []
    for index, (kind, text) in enumerate(column):
        edge = {"boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": _KINDS[kind], "linewidth": 2}
        y = 1 - (index + 0.5) / len(column)
        shown.append(ax.text(x, y, text, ha="center", va="center", fontsize=8, bbox=edge, zorder=3))
    return shown


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
    with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
        shares = get_param_importances(study_of(table), evaluator=PedAnovaImportanceEvaluator())
    ax.barh(list(shares)[::-1], list(shares.values())[::-1], color=COLORS["tuned"])
    ax.set(xlabel="importance", xlim=(0, 1))
    return ax


def draw_parallel_coordinates(table: pd.DataFrame) -> Axes:
    """Optuna's parallel coordinates of `trials_table`, a line a trial, dark where dev Dice is high after one epoch."""
    with warnings.catch_warnings(action="ignore"):  # experimental, and a setting that all trials share
        plot = optuna.visualization.matplotlib.plot_parallel_coordinate
        ax = plot(study_of(table), list(SPACE), target_name="dev Dice, epoch 1")
    for lines in ax.collections:  # Optuna's own colours are too pale where Dice is low
        lines.set_cmap("viridis_r")
    for each in ax.figure.axes:
        if each.get_yscale() == "log":  # a range may hold one power of ten; minor labels would cover one another
            each.yaxis.set(major_locator=LogLocator(subs=(1, 3)), major_formatter="{x:.0e}", minor_formatter="")
        for label in each.yaxis.get_ticklabels():
            label.set(fontsize=8, bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.9, "pad": 1})
    return ax
