"""Pictures of scores show the numbers they were given, for any number of models."""

from io import BytesIO
from itertools import product

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from medsam_helpers.errors import ConfigError, DataError
from medsam_helpers.evaluation.intervals import Interval
from medsam_helpers.figures import scores
from medsam_helpers.figures.cases import COLORS

CASES = list("abcdefghij")


def make_table(models=("box", "zero-shot", "tuned"), prompts=("exact", "j20")):
    """Random Dice of each case, model and prompt."""
    table = pd.DataFrame(product(CASES, models, prompts), columns=["case", "model", "prompt"])
    return table.assign(dice=np.random.default_rng(0).uniform(0.5, 1, len(table)))


@pytest.fixture
def ax():
    return Figure().subplots()


def points(collection):
    return np.asarray(collection.get_offsets())


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_known_models_keep_their_colours_and_new_ones_get_their_own():
    styles = scores.model_styles(["tuned", "ours", "zero-shot", "theirs"])
    assert styles["tuned"]["color"] == COLORS["tuned"]
    assert len({style["color"] for style in styles.values()}) == 4
    with pytest.raises(ConfigError, match="at most 4"):
        scores.model_styles(list("abcde"))


def test_the_scatter_has_a_point_a_case_above_the_diagonal_where_it_gained(ax):
    table = make_table()
    scores.before_after_scatter(ax, table, "j20")
    rows = table[table["prompt"] == "j20"].pivot(index="case", columns="model", values="dice")
    gained, lost = map(points, ax.collections)
    up = rows["tuned"] > rows["zero-shot"]
    np.testing.assert_allclose(gained, rows.loc[up, ["zero-shot", "tuned"]])
    np.testing.assert_allclose(lost, rows.loc[~up, ["zero-shot", "tuned"]])
    assert labels(ax) == [f"gained: {up.sum()}", f"did not gain: {(~up).sum()}"]
    assert ax.get_xlim() == ax.get_ylim()


def test_the_curve_runs_through_the_means_in_order_of_the_jitter(ax):
    table = make_table(prompts=("j50", "exact", "j20"))
    scores.jitter_curve(ax, table)
    for line in ax.lines:
        rows = table[table["model"] == line.get_label()]
        means = rows.groupby("prompt")["dice"].mean()
        assert list(line.get_xdata()) == [0, 20, 50]
        np.testing.assert_allclose(line.get_ydata(), means[["exact", "j20", "j50"]])
    assert labels(ax) == ["box", "zero-shot", "tuned"]
    assert len(ax.collections) == 2  # a band for each model, none for the baseline


def test_runs_are_drawn_over_the_first_one_a_row_a_prompt():
    figure = scores.comparison_figure(make_table(models=("first", "second", "third")))
    assert len(figure.axes) == 2 * 2
    assert [ax.get_ylabel() for ax in figure.axes] == ["Dice, second", "Dice, third"] * 2
    few = make_table(models=("first", "second"), prompts=("j20",))
    few = few[few["case"].isin(CASES[:3])]
    assert "no interval" in scores.comparison_figure(few).axes[0].get_title()
    figure.savefig(BytesIO())


def test_differences_are_hollow_where_the_interval_holds_zero(ax):
    rows = {"open": Interval(0.01, -0.01, 0.03), "clear": Interval(-0.02, -0.03, -0.01)}
    scores.differences(ax, rows)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == list(rows)
    for place, (drawn, (mean, low, high)) in enumerate(zip(ax.containers, rows.values(), strict=True)):
        np.testing.assert_allclose(drawn.lines[0].get_xydata(), [[mean, place]])
        np.testing.assert_allclose(drawn.lines[2][0].get_segments()[0], [[low, place], [high, place]])
        assert (drawn.lines[0].get_markerfacecolor() == "white") == (low < 0 < high)


def test_reliability_has_the_diagonal_and_a_line_a_model(ax):
    score = np.linspace(0.6, 1, 20)
    truth = {"zero-shot": score - 0.1, "tuned": score}
    tables = {name: scores.calibration_table(score, dice, 4) for name, dice in truth.items()}
    scores.reliability(ax, tables)
    lines = [container.lines[0] for container in ax.containers]
    for line, table in zip(lines, tables.values(), strict=True):
        np.testing.assert_allclose(np.asarray(line.get_data(), float), table[["score", "truth"]].to_numpy().T)
    assert ax.get_xlim()[0] < tables["zero-shot"]["low"].min()  # the lowest bar is still inside


def test_calibration_groups_by_the_score_whatever_the_order():
    rng = np.random.default_rng(2)
    score = rng.permutation(np.linspace(0.5, 1, 103))
    table = scores.calibration_table(score, score - 0.1, groups=5)
    assert table["n"].tolist() == [21, 21, 21, 20, 20]
    assert table["score"].is_monotonic_increasing
    np.testing.assert_allclose(table["gap"], 0.1)
    assert ((table["low"] < table["truth"]) & (table["truth"] < table["high"])).all()
    assert (table["n"] * table["score"]).sum() == pytest.approx(score.sum())
    assert scores.calibration_table([0.9, 0.8], [0.5, 0.6], groups=5)["n"].tolist() == [1, 1]

    with pytest.raises(DataError, match="calibration needs a finite score"):
        scores.calibration_table([np.nan, 0.5], [0.5, 0.5])
