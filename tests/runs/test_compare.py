"""Run folders side by side: the paired difference to the first, and what was not scored alike, in words."""

import json

import numpy as np
import pandas as pd
import pytest
from helpers import table_of
from scipy import stats

from medsam_helpers.errors import ConfigError, DataError
from medsam_helpers.runs.compare import compare_runs, differing_settings, read_runs
from medsam_helpers.runs.recorded import write_table

BASE = [0.6, 0.7, 0.8, 0.9, 0.5, 0.7]


def save_run(folder, dice, prompts=("j20",), box_mode="union", **changes):
    """A run's folder with the scores of a model "tuned" and of a baseline."""
    scores = table_of(box=[0.5] * len(dice), tuned=dice).assign(**changes)
    folder.mkdir()
    write_table(pd.concat([scores.assign(prompt=prompt) for prompt in prompts]), folder / "metrics.csv")
    (folder / "run_card.json").write_text(json.dumps({"recipe": {"box_mode": box_mode}}))
    return folder


def test_runs_on_the_same_images_are_compared_with_the_first(tmp_path):
    gains = [0.1, 0.0, 0.1, 0.05, 0.2, -0.05]
    better = (np.array(BASE) + gains).tolist()
    first, other = save_run(tmp_path / "first", BASE), save_run(tmp_path / "other", better)
    table = read_runs([first, other])
    assert set(table["model"]) == {"first", "other"}
    found = compare_runs(table).set_index("run")
    assert found["dice"].tolist() == pytest.approx([0.7, 0.7 + sum(gains) / 6])
    assert found["dice_pooled"].tolist() == pytest.approx(found["dice"].tolist()), "images of one size"
    interval = stats.ttest_1samp(gains, 0).confidence_interval()
    assert tuple(found.loc["other", ["low", "high"]]) == pytest.approx((interval.low, interval.high))
    assert found.loc["first", ["difference", "low", "high"]].isna().all()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dice": BASE[:4]}, r"2 images were scored for one of the two only \(case4, case5\)"),
        ({"area_true": 11}, r"6 images have another reference mask \(case0, case1, case2, \.\.\.\)"),
        ({"prompts": ("exact", "j20")}, "prompts j20 against exact, j20; choose one with --prompt: both have j20"),
        ({"seed": 1}, "the boxes were jittered with other seeds"),
        ({"box_mode": "components"}, "box mode union against components"),
    ],
)
def test_what_was_scored_otherwise_is_refused_in_words(tmp_path, changes, said):
    first, other = save_run(tmp_path / "first", BASE), save_run(tmp_path / "other", **{"dice": BASE} | changes)
    with pytest.raises(DataError, match=f"first and other cannot be compared: {said}"):
        read_runs([first, other])
    if "prompts" in changes:
        assert set(read_runs([first, other], prompt="j20")["model"]) == {"first", "other"}


def test_what_two_runs_were_trained_otherwise_on_is_told(tmp_path):
    first, other = save_run(tmp_path / "first", BASE), save_run(tmp_path / "other", BASE)
    for folder, lr, train in ((first, 2e-4, 10), (other, 1e-3, 240)):
        card = {"recipe": {"name": f"{lr}", "lr": lr, "loss": "dice_ce"}, "config": {"seed": 0, "train_limit": train}}
        (folder / "run_card.json").write_text(json.dumps(card | {"sizes": {"train": train}, "model": folder.name}))
    expected = ["model first against other", "train images 10 against 240", "lr 0.0002 against 0.001"]
    assert differing_settings(first, other) == expected
    assert differing_settings(first, tmp_path) == [], "there is no card"


def test_runs_that_are_none_are_refused(tmp_path):
    first = save_run(tmp_path / "first", BASE)
    record = save_run(tmp_path / "record", BASE)
    twice = (record / "metrics.csv").read_text()
    (record / "metrics.csv").write_text(twice + twice.partition("\n")[2])
    for folders, error, said in (
        ([first], ConfigError, "two runs or more"),
        ([first, first], ConfigError, "each given once"),
        ([first, tmp_path / "none"], DataError, "cannot be read as a table of scores"),
        ([first, record], DataError, "holds several runs of an experiment"),
    ):
        with pytest.raises(error, match=said):
            read_runs(folders)
    with pytest.raises(ConfigError, match="first: model 'third' is unknown: use box, tuned"):
        read_runs([first, save_run(tmp_path / "other", BASE)], model="third")
