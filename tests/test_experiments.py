"""Experiments: the files that are there, mistakes in them, and one from end to end with a stop in the middle."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from conftest import draw_discs, make_tiny_sam, save_images
from medsam_helpers import experiment as engine
from medsam_helpers import reproduce as runner
from medsam_helpers.data import SOURCES
from medsam_helpers.errors import ConfigError, DataError
from medsam_helpers.experiments import experiment_names, read_experiment
from medsam_helpers.reproduce import reproduce
from medsam_helpers.scores import read_table
from medsam_helpers.weights import WEIGHTS

TINY = """
title = "tiny"
data = "data"
score = "SCORE"
prompts = ["exact", "j20"]
dev_jitter_1024 = 20
[defaults]
model = "tiny"
recipe = "quick"
change = { epochs = 2, precision = "fp32", loss = "dice_bce", batch = 2 }
[[runs]]
name = "base"
kind = "zero-shot"
[[runs]]
name = "first"
[[runs]]
name = "wide"
change = { jitter_1024 = 40 }
train_limit = [2, 3]
[[runs]]
name = "seeds"
change = { lr = 1e-3 }
train_limit = 2
seeds = [1, 2]
"""


@pytest.fixture
def place(tmp_path, monkeypatch, cache):
    """A model, 7 train, 1 dev and 4 val cases, an experiment on dev and one on val."""
    make_tiny_sam().save_pretrained(tmp_path / "tiny")
    cases = save_images(draw_discs(12), tmp_path / "data")
    for split, names in {"train": cases.names[:8], "val": cases.names[8:]}.items():
        (tmp_path / "data" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    for score in ("dev", "val"):
        (tmp_path / f"{score}.toml").write_text(TINY.replace("SCORE", score))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", experiment_names())
def test_every_committed_experiment_can_be_read_and_says_what_it_answers(name):
    experiment = read_experiment(name)
    assert experiment.data in SOURCES
    assert {trial.model for trial in experiment.trials} <= WEIGHTS.keys()
    first = Path(runner.FOLDER, f"{name}.toml").read_text().splitlines()[0]
    assert first.startswith("# ")
    assert first.rstrip().find("?") > 0
    assert (experiment.score == "dev") == ("search" in name), "choices are made on dev, reports on val"


def test_the_search_changes_one_thing_at_a_time_and_judges_all_alike():
    experiment = read_experiment("kvasir-search")
    base, *others = [trial.recipe.as_dict() for trial in experiment.trials]
    assert [sum(base.get(key) != trial.get(key) for key in base | trial) for trial in others] == [1] * len(others)
    assert experiment.dev_jitter_1024 == 20
    assert {trial.train_limit for trial in experiment.trials} == {240}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("title =", "titel =", r"dev.toml: titel is unknown: use title, data"),
        ("title = ", "title = = ", r"dev.toml: cannot be read as TOML: .*line 2"),
        ('"SCORE"', '"test"', r"dev.toml: score 'test' is unknown: use dev or val"),
        ('"j20"]', '"k20"]', r"dev.toml: prompts: prompt 'k20' is unknown"),
        ('kind = "zero-shot"', 'kind = "sweep"', r"dev.toml: runs\[0\] \(base\): kind 'sweep' is unknown"),
        ("jitter_1024 = 40", "jiter = 40", r"dev.toml: runs\[2\] \(wide\): change.jiter is unknown: use loss"),
        ("lr = 1e-3", 'lr = "x"', r"dev.toml: runs\[3\] \(seeds\): "),
        ("lr = 1e-3", "lr = -1.0", r"runs\[3\] \(seeds\): lr must be greater than 0"),
        ("seeds = [1, 2]", "seeds = [1, 1]", r"'seeds' with seed 1 is there twice"),
        ("seeds = [1, 2]", "seeds = 1", r"runs\[3\]\.seeds has the wrong type: 1"),
        ('name = "first"', "", r"runs\[1\] \(no name\): name is missing"),
    ],
)
def test_a_mistake_in_a_file_is_named_with_file_and_key(tmp_path, old, new, said):
    assert old in TINY
    (tmp_path / "dev.toml").write_text(TINY.replace(old, new).replace("SCORE", "dev"))
    with pytest.raises(ConfigError, match=said):
        read_experiment("dev", tmp_path)


def test_an_unknown_name_lists_those_there_are(place):
    with pytest.raises(ConfigError, match="no experiment 'nope': there are dev, val"):
        read_experiment("nope", place)
    done = subprocess.run(
        [sys.executable, "-m", "medsam_helpers", "reproduce", "nope"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("medsam: no experiment 'nope': there are kvasir-data, ")


def test_a_stop_keeps_what_is_done_and_nothing_is_trained_twice(place, monkeypatch):
    experiment, output, trained = read_experiment("dev", place), place / "results", []
    # A search must not read val: its pictures are damaged, which reading would find out.
    for index in range(8, 12):
        (place / "data" / "images" / f"disc-{index}.png").write_bytes(b"damaged")
    with pytest.raises(DataError):
        reproduce(read_experiment("val", place), None, place / "other", False)
    real, scored = engine.fit, engine.evaluate

    def counted(*arguments, **options):
        trained.append(arguments[5].name)
        return real(*arguments, **options)

    def stopped(*arguments, **options):
        if len(trained) == 2:
            raise KeyboardInterrupt
        return scored(*arguments, **options)

    monkeypatch.setattr(engine, "fit", counted)
    monkeypatch.setattr(engine, "evaluate", stopped)
    with pytest.raises(KeyboardInterrupt):
        reproduce(experiment, None, output, False, "medsam reproduce dev")
    card = json.loads((output / "run_card.json").read_text())
    assert card["complete"] is False
    assert [run["run"] for run in card["runs"]] == ["base", "first"]
    assert set(pd.read_csv(output / "summary.csv")["run"]) == {"base", "first"}

    monkeypatch.setattr(engine, "evaluate", scored)
    summary = reproduce(experiment, None, output, False, "medsam reproduce dev")
    assert list(summary["run"]) == ["base", "first", "wide 2", "wide 3", "seeds", "seeds"]
    # `first` once; `wide 2`, stopped while it was scored, was opened again and found trained.
    assert len(trained) == 6
    assert trained[1] == trained[2]
    assert len(set(trained)) == 5
    card = json.loads((output / "run_card.json").read_text())
    assert card["complete"] is True
    assert str(place) not in "".join(path.read_text() for path in output.iterdir()), "no folder of this machine"

    table = read_table(output / "metrics.csv")
    assert set(table["case"]) == {case for case in table["case"] if int(case.split("-")[1]) < 8}
    whole = pd.read_csv(output / "metrics.csv")
    assert set(whole["prompt"]) == {"exact", "j20"}, "a jitter of 40 in training is judged at 20 too"
    first = whole[(whole["run"] == "first") & (whole["prompt"] == "j20")].groupby("model")["dice"].mean()
    row = summary.set_index("run").loc["first"]
    assert row["tuned_j20"] == pytest.approx(first["tuned"], abs=1e-5)
    assert row["gain"] == pytest.approx(first["tuned"] - first["zero-shot"], abs=1e-5)
    history = pd.read_csv(output / "history.csv")
    assert history.groupby(["run", "seed"]).size().to_dict() == {
        ("first", 0): 3, ("seeds", 1): 3, ("seeds", 2): 3, ("wide 2", 0): 3, ("wide 3", 0): 3
    }  # fmt: skip

    again = reproduce(experiment, None, output, False, "medsam reproduce dev")
    assert len(trained) == 6
    pd.testing.assert_frame_equal(again, summary)


def test_a_report_scores_val_and_takes_another_place_of_the_same_data(place):
    experiment, output = read_experiment("val", place), place / "results"
    (place / "data").rename(place / "elsewhere")
    summary = reproduce(experiment, str(place / "elsewhere"), output, False, "medsam reproduce val")
    assert set(summary["n_scored"]) == {4}
    assert list(summary["n_train"]) == [0, 7, 2, 3, 2, 2]
    table = read_table(output / "metrics.csv")
    assert {int(case.split("-")[1]) for case in table["case"]} == {8, 9, 10, 11}
    assert str(place) not in (output / "run_card.json").read_text()
