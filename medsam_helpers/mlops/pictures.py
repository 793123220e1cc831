"""The pipeline drawn: where a model comes from. Returns Axes, shows nothing."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from mlflow.entities import Run

from medsam_helpers.mlops.lineage import Origin
from medsam_helpers.plotting import COLORS

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

    places = {}
    for x, column in ((0, left), (1, middle), (2, right)):
        for index, (kind, text) in enumerate(column):
            places[x, index] = (x, (index + 0.5) / len(column))
            _box(ax, places[x, index], kind, text)
    for start in range(len(left)):
        _arrow(ax, places[0, start], places[1, 0])
    for end in range(len(right)):
        _arrow(ax, places[1, 0], places[2, end])
    for index, (kind, text) in enumerate(pale):
        place = (1, -0.18 - 0.22 * index)
        _arrow(ax, places[0, 0], place, alpha=0.25)
        _box(ax, place, kind, text, alpha=0.4)
    lowest = -0.3 - 0.22 * (len(pale) - 1) if pale else 0
    ax.set(xlim=(-0.45, 2.45), ylim=(lowest, 1))
    ax.set_axis_off()
    return ax


def _box(ax: Axes, place: tuple[float, float], kind: str, text: str, alpha: float = 1) -> None:
    frame = {"boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": _KINDS[kind], "linewidth": 2}
    ax.text(*place, text, ha="center", va="center", fontsize=8, bbox=frame, alpha=alpha, zorder=3)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], alpha: float = 1) -> None:
    style = {"arrowstyle": "-|>", "color": "#666666", "alpha": alpha, "shrinkA": 46, "shrinkB": 46}
    ax.annotate("", end, start, arrowprops=style, zorder=2)
