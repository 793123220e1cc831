"""Experiments: the files that are there, mistakes in them, and one from end to end with a stop in the middle."""

import json
from pathlib import Path

import pandas as pd
import pytest
from helpers import draw_discs, make_tiny_sam, save_images

from medsam_helpers.cli.main import main
from medsam_helpers.data.case import Case, Cases
from medsam_helpers.data.sources import SOURCES
from medsam_helpers.errors import CheckpointError, ConfigError, DataError
from medsam_helpers.evaluation.compare import runs_as_models
from medsam_helpers.evaluation.tables import read_table
from medsam_helpers.runs import finetune as engine
from medsam_helpers.runs import reproduce as runner
from medsam_helpers.runs.experiments import FOLDER, experiment_names, read_experiment, sources_of
from medsam_helpers.runs.reproduce import reproduce
from medsam_helpers.sam.checkpoints import NAMES
from medsam_helpers.training import loop as training

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
    # "auto" is bf16 on some machines; then the base scored by itself and the base beside a run in fp32 differ a little.
    monkeypatch.setattr("medsam_helpers.device.has_fast_bf16", lambda device: False)
    return tmp_path


@pytest.mark.parametrize("name", experiment_names())
def test_every_committed_experiment_can_be_read_and_says_what_it_answers(name):
    experiment = read_experiment(name)
    assert set(experiment.sources) <= {*SOURCES, "busi"}
    assert {trial.model for trial in experiment.trials} <= {*NAMES}
    first = Path(FOLDER, f"{name}.toml").read_text().splitlines()[0]
    assert first.startswith("# ")
    assert first.rstrip().find("?") > 0
    assert (experiment.score == "dev") == ("search" in name), "choices are made on dev, reports on val"


@pytest.mark.parametrize("name", ["kvasir-search", "kvasir-search-more"])
def test_the_search_changes_one_thing_at_a_time_and_judges_all_alike(name):
    experiment = read_experiment(name)
    base, *others = [trial.full_recipe().identity() for trial in experiment.trials]
    assert [sum(base.get(key) != trial.get(key) for key in base | trial) for trial in others] == [1] * len(others)
    assert experiment.dev_jitter_1024 == 20
    assert {trial.train_limit for trial in experiment.trials} == {240}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("title =", "titel =", r"dev.toml: titel is unknown: use name, title, data"),
        ("title = ", "title = = ", r"dev.toml: cannot be read as TOML: .*line 2"),
        ('"SCORE"', '"test"', r"dev.toml: score 'test' is unknown: use dev or val"),
        ('"j20"]', '"k20"]', r"dev.toml: prompt 'k20' is unknown"),
        ("jitter_1024 = 40", "jiter = 40", r"dev.toml: runs\[2\] \(wide\): change.jiter is unknown: use loss"),
        ("lr = 1e-3", "lr = -1.0", r"runs\[3\] \(seeds\): lr must be greater than 0"),
        ("seeds = [1, 2]", "seeds = [1, 1]", r"'seeds' with seed 1 is there twice"),
        ('kind = "zero-shot"', 'kind = "zero-shot"\nstart = "a"', r"\(base\): start is where training begins"),
        ('name = "first"', "", r"runs\[1\] \(no name\): name is missing"),
        ("train_limit = 2", "train_limit = 2\nfolds = 2", r"train_limit and folds cannot go together"),
        ('name = "first"', 'name = "first"\nalso_on = {data = "val"}', r"also_on.data: this is the run's own data set"),
        ('name = "first"', 'name = "first"\ntrain_with = {b = 0}', r"train_with must be greater than 0, is 0"),
        ('name = "first"', 'name = "first"\ncheckpoint = "x"', r"model and checkpoint cannot go together"),
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
    shared = whole[whole["model"] != "tuned"]
    assert not shared.duplicated(["model", "prompt", "case"]).any(), "what every run scores alike stands once"
    own = (whole["run"] == "first") | (whole["model"] == "zero-shot")
    first = whole[own & (whole["prompt"] == "j20")].groupby("model")["dice"].mean()
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


def test_a_record_of_another_machine_is_added_to(place, monkeypatch):
    experiment, output, whole = read_experiment("dev", place), place / "results", place / "whole"
    reproduce(experiment, None, whole, False, "x")
    # Another machine: it has the record, of which two runs in the middle are missing, and an empty cache.
    kept = [trial for trial in experiment.trials if not trial.name.startswith("wide")]
    reproduce(experiment.but(trials=tuple(kept)), None, output, False, "x")
    monkeypatch.setenv("MEDSAM_CACHE", str(place / "empty cache"))
    trained, real = [], engine.fit

    def counted(*arguments, **options):
        trained.append(json.loads((output / "run_card.json").read_text())["runs"])
        return real(*arguments, **options)

    monkeypatch.setattr(engine, "fit", counted)
    summary = reproduce(experiment, None, output, False, "x", only_missing=True)
    assert list(summary["run"]) == ["base", "first", "wide 2", "wide 3", "seeds", "seeds"]
    assert [len(runs) for runs in trained] == [4, 5], "both were trained; meanwhile nothing was lost"
    assert json.loads((output / "run_card.json").read_text())["complete"] is True
    for file in ("metrics.csv", "history.csv"):
        one, other = (pd.read_csv(folder / file).drop(columns="seconds", errors="ignore") for folder in (output, whole))
        pd.testing.assert_frame_equal(one, other)

    reproduce(experiment, None, output, False, "x", only_missing=True)
    assert len(trained) == 2
    changed = experiment.but(trials=(experiment.trials[1].but(seed=5),))
    reproduce(changed, None, output, False, "x", only_missing=True)
    assert len(trained) == 3, "what the record holds is another run"


def test_a_recorded_run_that_was_not_scored_on_another_set_is_scored_there(two_places, monkeypatch):
    experiment, output = read_experiment("across", two_places), two_places / "results"
    sources = {"near": str(two_places / "near_folder"), "far": str(two_places / "far_folder")}
    alone = experiment.but(trials=tuple(trial.but(also_on={}) for trial in experiment.trials))
    assert len(reproduce(alone, sources, output, False, "x")) == 4
    monkeypatch.setattr(engine, "fit", None)  # the training lies in the cache
    assert len(reproduce(experiment, sources, output, False, "x", only_missing=True)) == 8


def test_a_damaged_record_is_not_added_to(place):
    (place / "results").mkdir()
    (place / "results" / "run_card.json").write_text('{"runs": [{"run": "a"}]}')
    with pytest.raises(DataError, match="no whole record"):
        reproduce(read_experiment("dev", place), None, place / "results", False, "x", only_missing=True)


def test_a_report_scores_val_and_takes_another_place_of_the_same_data(place):
    experiment, output = read_experiment("val", place), place / "results"
    (place / "data").rename(place / "elsewhere")
    summary = reproduce(experiment, {"data": str(place / "elsewhere")}, output, False, "medsam reproduce val")
    assert set(summary["n_scored"]) == {4}
    assert list(summary["n_train"]) == [0, 7, 2, 3, 2, 2]
    table = read_table(output / "metrics.csv")
    assert {int(case.split("-")[1]) for case in table["case"]} == {8, 9, 10, 11}
    assert str(place) not in (output / "run_card.json").read_text()


def test_a_checkpoint_is_scored_with_a_second_look_beside_its_base(place, monkeypatch):
    """The base beside it is looked at once; scored by itself with tta it is another row."""
    assert main(["finetune", "--data", "data", "--model", "tiny", "--epochs", "1", "--output", "kept"]) == 0
    (place / "looks.toml").write_text(LOOKS)
    experiment, output = read_experiment("looks", place), place / "results"
    summary = reproduce(experiment, None, output, False, "medsam reproduce looks").set_index("run")
    assert list(summary["n_train"]) == [7, 7, 0, 0]
    assert list(summary["recipe"]) == ["kept", "kept", "zero-shot", "zero-shot"]
    once, twice, base, base_twice = summary.index
    assert summary.loc[once, "tuned_j20"] != summary.loc[twice, "tuned_j20"]
    assert summary.loc[twice, "zero-shot_j20"] == summary.loc[base, "zero-shot_j20"]
    assert summary.loc[twice, "gain"] == pytest.approx(
        summary.loc[twice, "tuned_j20"] - summary.loc[base, "zero-shot_j20"], abs=1e-5
    )
    assert summary.loc[base_twice, "zero-shot_j20"] != summary.loc[base, "zero-shot_j20"]
    assert pd.isna(summary.loc[base, "gain"])

    table = pd.read_csv(output / "metrics.csv")
    means = table[table["prompt"] == "j20"].groupby(["model", "base"])["dice"].mean()
    assert means["zero-shot", "tiny"] == pytest.approx(summary.loc[base, "zero-shot_j20"], abs=1e-5)
    assert means["zero-shot", "tiny with tta"] == pytest.approx(summary.loc[base_twice, "zero-shot_j20"], abs=1e-5)
    models = {"kept", "kept, twice", "tiny zero-shot", "tiny zero-shot with tta", "box", "ellipse"}
    assert set(runs_as_models(output, "data")["model"]) == models
    monkeypatch.setattr(runner, "evaluate", None)  # nothing is scored again
    reproduce(experiment, None, output, False, "medsam reproduce looks")


def test_a_run_may_begin_with_a_fine_tuned_decoder(place, monkeypatch):
    assert main(["finetune", "--data", "data", "--model", "tiny", "--epochs", "1", "--output", "kept"]) == 0
    text = TINY.replace("SCORE", "val").replace('name = "first"', 'name = "first"\nstart = "kept"')
    (place / "go_on.toml").write_text(text)
    experiment, output = read_experiment("go_on", place), place / "results"
    plain = reproduce(read_experiment("val", place), None, place / "plain", False, "x").set_index("run")
    summary = reproduce(experiment, None, output, False, "x").set_index("run")
    assert summary.loc["first", "changes"].endswith("start kept")
    assert summary.loc["first", "dev_dice"] != plain.loc["first", "dev_dice"]
    assert summary.loc["wide 2", "dev_dice"] == plain.loc["wide 2", "dev_dice"]
    runs = json.loads((output / "run_card.json").read_text())["runs"]
    assert [run.get("start", {}).get("name") for run in runs[:3]] == [None, "kept", None]
    monkeypatch.setattr(engine, "fit", None)  # nothing is trained again
    reproduce(experiment, None, output, False, "x")
    (place / "kept").rename(place / "gone")
    with pytest.raises(CheckpointError, match="kept is no folder"):
        reproduce(experiment, None, output, False, "x")


def test_a_second_look_at_the_same_training_trains_nothing_again(place, monkeypatch):
    text = TINY.replace("SCORE", "val").replace(
        'name = "first"', 'name = "first"\n[[runs]]\nname = "twice"\ntta = true'
    )
    (place / "twice.toml").write_text(text)
    epochs, train_epoch = [], training.train_epoch
    monkeypatch.setattr(training, "train_epoch", lambda *given: epochs.append(given) or train_epoch(*given))
    experiment = read_experiment("twice", place)
    experiment = experiment.but(trials=experiment.trials[1:3])
    summary = reproduce(experiment, None, place / "results", False, "x")
    assert len(epochs) == 2, "once"
    assert list(summary["run"]) == ["first", "twice"]
    assert summary["dev_dice"].nunique() == 1
    assert summary["tuned_j20"].nunique() == 2


def test_every_run_is_asked_with_boxes_of_the_experiments_kind(place, monkeypatch):
    """A base that is scored as it is, and a run: one box round all, or one a disc."""
    asked = []
    score = runner.evaluate
    for module in (runner, engine):
        monkeypatch.setattr(module, "evaluate", lambda *a, **k: asked.append(k["box_mode"]) or score(*a, **k))
    text = TINY.replace("SCORE", "val").replace('data = "data"', 'data = "data"\nbox_mode = "components"')
    (place / "each.toml").write_text(text)
    each, union = (read_experiment(name, place) for name in ("each", "val"))
    assert each.trials[1].full_recipe().box_mode == "components"
    for experiment in (each, union):
        reproduce(experiment.but(trials=experiment.trials[:2]), None, place / experiment.name, False, "x")
    assert asked == ["components", "components", "union", "union"]
    cards = [json.loads((place / name / "run_card.json").read_text()) for name in ("each", "val")]
    assert [card.get("box_mode") for card in cards] == ["components", None]


LOOKS = """
data = "data"
prompts = ["exact", "j20"]
[[runs]]
name = "kept"
checkpoint = "kept"
[[runs]]
name = "kept, twice"
checkpoint = "kept"
tta = true
[[runs]]
name = "base"
kind = "zero-shot"
model = "tiny"
[[runs]]
name = "base, twice"
kind = "zero-shot"
model = "tiny"
tta = true
"""

ACROSS = """
title = "tiny, across"
data = "near"
prompts = ["exact", "j20"]
[defaults]
model = "tiny"
recipe = "quick"
change = { epochs = 1, precision = "fp32", loss = "dice_bce", batch = 2 }
[[runs]]
name = "folds"
folds = 3
train_with = { far = 2 }
also_on = { far = "val" }
[[runs]]
name = "far only"
data = "far"
also_on = { near = "all" }
"""


@pytest.fixture
def two_places(tmp_path, monkeypatch, cache):
    """A model, `near` with 7 cases and no split, `far` with 8 train and 3 val cases."""
    make_tiny_sam().save_pretrained(tmp_path / "tiny")
    save_images(draw_discs(7), tmp_path / "near_folder")
    renamed = {f"far-{index}": case for index, case in enumerate(draw_discs(11, seed=1))}
    far = Cases(list(renamed), lambda name: Case(name, renamed[name].image, renamed[name].mask))
    save_images(far, tmp_path / "far_folder")
    for split, names in {"train": far.names[:8], "val": far.names[8:]}.items():
        (tmp_path / "far_folder" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    (tmp_path / "across.toml").write_text(ACROSS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_folds_of_one_set_training_with_another_scores_on_both(two_places, monkeypatch):
    experiment, output = read_experiment("across", two_places), two_places / "results"
    assert experiment.sources == ["near", "far"]
    sources = sources_of(experiment, [str(two_places / "near_folder"), f"far={two_places / 'far_folder'}"])
    summary = reproduce(experiment, sources, output, False, "medsam reproduce across")
    assert list(summary["run"]) == ["folds"] * 6 + ["far only"] * 2
    assert list(summary["tested_on"]) == ["near", "far"] * 3 + ["far", "near"]
    # 7 cases in parts of 3, 2 and 2: of the others one is dev, the rest train, with 2 of far.
    assert list(summary["n_train"]) == [5, 5, 6, 6, 6, 6, 7, 7]
    assert list(summary["n_scored"]) == [3, 3, 2, 3, 2, 3, 3, 7]

    table = pd.read_csv(output / "metrics.csv")
    tuned = table[(table["model"] == "tuned") & (table["prompt"] == "j20")]
    near = tuned[(tuned["run"] == "folds") & (tuned["tested_on"] == "near")]
    assert sorted(near["case"]) == [f"disc-{index}" for index in range(7)], "each case once"
    far = tuned[(tuned["run"] == "folds") & (tuned["tested_on"] == "far")]
    assert far.groupby("fold")["case"].apply(sorted).tolist() == [["far-10", "far-8", "far-9"]] * 3
    only = tuned[tuned["run"] == "far only"]
    assert set(only.loc[only["tested_on"] == "near", "case"]) == {f"disc-{index}" for index in range(7)}
    row = summary.iloc[-1]
    assert row["tuned_j20"] == pytest.approx(only.loc[only["tested_on"] == "near", "dice"].mean(), abs=1e-5)

    monkeypatch.setattr(engine, "fit", None)  # nothing is trained again, nothing is scored again
    monkeypatch.setattr(runner, "evaluate", None)
    pd.testing.assert_frame_equal(reproduce(experiment, sources, output, False, "medsam reproduce across"), summary)
    assert str(two_places) not in (output / "run_card.json").read_text()


def test_a_stop_before_the_other_set_was_scored_goes_on_there(two_places, monkeypatch):
    experiment, output = read_experiment("across", two_places), two_places / "results"
    sources = {"near": str(two_places / "near_folder"), "far": str(two_places / "far_folder")}
    scored = runner.evaluate
    monkeypatch.setattr(runner, "evaluate", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        reproduce(experiment, sources, output, False, "x")
    monkeypatch.setattr(runner, "evaluate", scored)
    trained, real = [], engine.fit
    monkeypatch.setattr(engine, "fit", lambda *a, **k: trained.append(1) or real(*a, **k))
    assert len(reproduce(experiment, sources, output, False, "x")) == 8
    assert len(trained) == 3, "the first fold was trained before the stop"


def test_the_place_of_each_data_set_can_be_given(two_places):
    experiment = read_experiment("across", two_places)
    with pytest.raises(ConfigError, match="data set 'near' cannot be fetched: pass its folder with --data near=FOLDER"):
        sources_of(experiment, ["far=far_folder"])
    with pytest.raises(ConfigError, match="--data fra=far_folder: across uses near, far"):
        sources_of(experiment, ["fra=far_folder"])
