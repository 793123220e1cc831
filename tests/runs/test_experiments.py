"""Experiments: the files that are there, mistakes in them, and some from end to end, with stops in the middle."""

import json
from pathlib import Path

import pandas as pd
import pytest
from helpers import draw_discs, make_tiny_sam, medsam, save_images

from medsam_helpers.data.case import Case, Cases
from medsam_helpers.data.sources import SOURCES
from medsam_helpers.errors import CheckpointError, ConfigError, DataError
from medsam_helpers.runs import finetune as engine
from medsam_helpers.runs import reproduce as runner
from medsam_helpers.runs.experiments import FOLDER, experiment_names, read_experiment, sources_of
from medsam_helpers.runs.recorded import read_table, runs_as_models
from medsam_helpers.runs.reproduce import reproduce
from medsam_helpers.sam.checkpoints import NAMES
from medsam_helpers.training import loop as training

TINY = """
title = "tiny"
data = "data"
score = "SCORE"
prompts = ["exact", "j20"]
dev_jitter_1024 = 20
runs = [
    { name = "base", kind = "zero-shot" },
    { name = "first" },
    { name = "wide", change = { jitter_1024 = 40 }, train_limit = [2, 3] },
    { name = "seeds", change = { lr = 1e-3 }, train_limit = 2, seeds = [1, 2] },
]
[defaults]
model = "tiny"
recipe = "quick"
change = { epochs = 2, precision = "fp32", loss = "dice_bce", batch = 2 }
"""
RUNS = ["base", "first", "wide 2", "wide 3", "seeds", "seeds"]


@pytest.fixture
def place(tmp_path, monkeypatch, cache):
    """A model, 7 train, 1 dev and 4 val cases, an experiment on dev and one on val."""
    make_tiny_sam().save_pretrained(tmp_path / "tiny")
    save_images(draw_discs(12), tmp_path / "data", n_train=8)
    for score in ("dev", "val"):
        (tmp_path / f"{score}.toml").write_text(TINY.replace("SCORE", score))
    monkeypatch.chdir(tmp_path)
    # "auto" is bf16 on some machines; then the base scored by itself and the base beside a run in fp32 differ a little.
    monkeypatch.setattr("medsam_helpers.device.has_fast_bf16", lambda device: False)
    return tmp_path


@pytest.fixture
def kept(place):
    """A fine-tuned decoder, in the folder `kept`."""
    arguments = ["--data", "data", "--model", "tiny", "--epochs", 1, "--output", "kept"]
    assert medsam("finetune", *arguments).status == 0


def record(experiment, output="results", sources=None, **options):
    sources = sources or sources_of(experiment, [])
    return reproduce(experiment, sources, Path(output), "medsam reproduce", show_progress=False, **options)


def variant(place, name, old, new):
    """The experiment on val with something changed in its file."""
    (place / f"{name}.toml").write_text(TINY.replace("SCORE", "val").replace(old, new))
    return read_experiment(name, place)


def card_of(folder):
    return json.loads(Path(folder, "run_card.json").read_text())


@pytest.fixture
def trained(monkeypatch):
    """The folder of each training from now on."""
    folders, real = [], engine.fit
    monkeypatch.setattr(engine, "fit", lambda *given, **options: folders.append(given[5]) or real(*given, **options))
    return folders


@pytest.mark.parametrize("name", experiment_names())
def test_every_committed_experiment_can_be_read_and_says_what_it_answers(name):
    experiment = read_experiment(name)
    assert set(experiment.sources) <= {*SOURCES, "busi"}
    assert {trial.model for trial in experiment.trials} <= {*NAMES}
    first = Path(FOLDER, f"{name}.toml").read_text().splitlines()[0]
    assert first.startswith("# ")
    assert "?" in first
    assert (experiment.score == "dev") == ("search" in name), "choices are made on dev, reports on val"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("title =", "titel =", r"dev.toml: titel is unknown: use name, title, data"),
        ("title = ", "title = = ", r"dev.toml: cannot be read as TOML: .*line 2"),
        ("jitter_1024 = 40", "jiter = 40", r"dev.toml: runs\[2\] \(wide\): jiter is unknown: use name, source, loss"),
        ("seeds = [1, 2]", "seeds = [1, 1]", r"'seeds' with seed 1 is there twice"),
        ('kind = "zero-shot"', 'kind = "zero-shot", start = "a"', r"\(base\): start is where training begins"),
        ("train_limit = 2", "train_limit = 2, folds = 2", r"train_limit and folds cannot go together"),
        ('name = "first"', 'name = "first", also_on = {data = "val"}', r"also_on.data: this is the run's own data set"),
        ('name = "first"', 'name = "first", also_on = {"../../x" = "val"}', r"\(first\): also_on .*match pattern"),
        (
            '"j20"]\ndev_jitter_1024 = 20\nruns = [',
            '"j20+centre"]\nruns = [{ name = "net", model = "unet", recipe = "unet" },',
            r"prompts: j20\+centre asks with a click, which unet does not take",
        ),
    ],
)
def test_a_mistake_in_a_file_is_named_with_file_and_key(tmp_path, old, new, said):
    assert old in TINY
    (tmp_path / "dev.toml").write_text(TINY.replace(old, new).replace("SCORE", "dev"))
    with pytest.raises(ConfigError, match=said):
        read_experiment("dev", tmp_path)


def test_a_stop_keeps_what_is_done_and_nothing_is_trained_twice(place, monkeypatch, trained):
    experiment, output, scored = read_experiment("dev", place), place / "results", engine.evaluate
    # A search must not read val: its pictures are damaged, which reading would find out.
    for index in range(8, 12):
        (place / "data" / "images" / f"disc-{index}.png").write_bytes(b"damaged")
    with pytest.raises(DataError):
        record(read_experiment("val", place), "other")

    def stopped(*arguments, **options):
        if len(trained) == 2:
            raise KeyboardInterrupt
        return scored(*arguments, **options)

    monkeypatch.setattr(engine, "evaluate", stopped)
    with pytest.raises(KeyboardInterrupt):
        record(experiment)
    assert card_of(output)["complete"] is False
    assert [run["run"] for run in card_of(output)["runs"]] == ["base", "first"]
    assert set(pd.read_csv(output / "summary.csv")["run"]) == {"base", "first"}

    monkeypatch.setattr(engine, "evaluate", scored)
    summary = record(experiment)
    assert list(summary["run"]) == RUNS
    assert list(summary["n_train"]) == [0, 7, 2, 3, 2, 2]
    # `first` once; `wide 2`, stopped while it was scored, was opened again and found trained.
    assert (len(trained), len(set(trained))) == (6, 5)
    assert trained[1] == trained[2]
    assert card_of(output)["complete"] is True
    assert str(place) not in "".join(path.read_text() for path in output.iterdir()), "no folder of this machine"

    assert {int(case.split("-")[1]) < 8 for case in read_table(output / "metrics.csv")["case"]} == {True}
    whole = pd.read_csv(output / "metrics.csv")
    assert set(whole["prompt"]) == {"exact", "j20"}, "a jitter of 40 in training is judged at 20 too"
    shared = whole[whole["model"] != "tuned"]
    assert not shared.duplicated(["model", "prompt", "case"]).any(), "what every run scores alike stands once"
    own = (whole["run"] == "first") | (whole["model"] == "zero-shot")
    first = whole[own & (whole["prompt"] == "j20")].groupby("model")["dice"].mean()
    row = summary.set_index("run").loc["first"]
    assert row["tuned_j20"] == pytest.approx(first["tuned"], abs=1e-5)
    assert row["gain"] == pytest.approx(first["tuned"] - first["zero-shot"], abs=1e-5)
    epochs = pd.read_csv(output / "history.csv").groupby(["run", "seed"]).size().to_dict()
    assert epochs == dict.fromkeys([("first", 0), ("wide 2", 0), ("wide 3", 0), ("seeds", 1), ("seeds", 2)], 3)

    pd.testing.assert_frame_equal(record(experiment), summary)
    assert len(trained) == 6


def test_a_record_of_another_machine_is_added_to(place, monkeypatch):
    experiment = read_experiment("dev", place)
    record(experiment, "whole")
    # Another machine: it has the record, of which two runs in the middle are missing, and an empty cache.
    kept = [trial for trial in experiment.trials if not trial.name.startswith("wide")]
    record(experiment.but(trials=tuple(kept)))
    monkeypatch.setenv("MEDSAM_CACHE", str(place / "empty cache"))
    held, fit = [], engine.fit
    monkeypatch.setattr(engine, "fit", lambda *a, **k: held.append(len(card_of("results")["runs"])) or fit(*a, **k))
    assert list(record(experiment, only_missing=True)["run"]) == RUNS
    assert held == [4, 5], "both were trained; meanwhile nothing was lost"
    assert card_of("results")["complete"] is True
    for file in ("metrics.csv", "history.csv"):
        one, other = (pd.read_csv(place / folder / file) for folder in ("results", "whole"))
        same = one.columns.difference(["seconds"], sort=False)
        pd.testing.assert_frame_equal(one[same], other[same])

    record(experiment, only_missing=True)
    assert len(held) == 2
    record(experiment.but(trials=(experiment.trials[1].but(seed=5),)), only_missing=True)
    assert len(held) == 3, "what the record holds is another run"
    Path("results/run_card.json").write_text('{"runs": [{"run": "a"}]}')
    with pytest.raises(DataError, match="no whole record"):
        record(experiment, only_missing=True)


WITH_TTA = """
data = "data"
prompts = ["exact", "j20"]
runs = [
    { name = "kept", checkpoint = "kept" },
    { name = "kept with tta", checkpoint = "kept", tta = true },
    { name = "base", kind = "zero-shot", model = "tiny" },
    { name = "base with tta", kind = "zero-shot", model = "tiny", tta = true },
]
"""


def test_a_checkpoint_is_scored_with_test_time_augmentation_beside_its_base_without(place, kept, monkeypatch):
    (place / "augmented.toml").write_text(WITH_TTA)
    experiment = read_experiment("augmented", place)
    summary = record(experiment).set_index("run")
    assert list(summary["n_train"]) == [7, 7, 0, 0]
    assert list(summary["recipe"]) == ["kept", "kept", "zero-shot", "zero-shot"]
    tuned, base = summary["tuned_j20"], summary["zero-shot_j20"]
    assert tuned["kept"] != tuned["kept with tta"]
    assert base["kept with tta"] == base["base"] != base["base with tta"]
    gain = tuned["kept with tta"] - base["base"]
    assert summary.loc["kept with tta", "gain"] == pytest.approx(gain, abs=1e-5)
    assert pd.isna(summary.loc["base", "gain"])

    table = pd.read_csv("results/metrics.csv")
    means = table[table["prompt"] == "j20"].groupby(["model", "base"])["dice"].mean()
    assert means["zero-shot", "tiny"] == pytest.approx(base["base"], abs=1e-5)
    assert means["zero-shot", "tiny with tta"] == pytest.approx(base["base with tta"], abs=1e-5)
    models = {"kept", "kept with tta", "tiny zero-shot", "tiny zero-shot with tta", "box", "ellipse"}
    assert set(runs_as_models("results", "data")["model"]) == models
    monkeypatch.setattr(runner, "evaluate_together", None)  # nothing is scored again
    record(experiment)


def test_a_run_may_begin_with_a_fine_tuned_decoder(place, kept, monkeypatch):
    experiment = variant(place, "go_on", 'name = "first"', 'name = "first", start = "kept"')
    experiment = experiment.but(trials=experiment.trials[:3])
    plain = read_experiment("val", place)
    plain = record(plain.but(trials=plain.trials[:3]), "plain").set_index("run")
    summary = record(experiment).set_index("run")
    assert summary.loc["first", "changes"].endswith("start kept")
    assert summary.loc["first", "dev_dice"] != plain.loc["first", "dev_dice"]
    assert summary.loc["wide 2", "dev_dice"] == plain.loc["wide 2", "dev_dice"]
    assert [run.get("start", {}).get("name") for run in card_of("results")["runs"]] == [None, "kept", None]
    monkeypatch.setattr(engine, "fit", None)  # nothing is trained again
    record(experiment)
    (place / "kept").rename(place / "gone")
    with pytest.raises(CheckpointError, match="kept is no folder"):
        record(experiment)


def test_test_time_augmentation_of_the_same_training_trains_nothing_again(place, monkeypatch):
    experiment = variant(place, "twice", '{ name = "first" }', '{ name = "first" }, { name = "twice", tta = true }')
    epochs, train_epoch = [], training.train_epoch
    monkeypatch.setattr(training, "train_epoch", lambda *given: epochs.append(given) or train_epoch(*given))
    summary = record(experiment.but(trials=experiment.trials[1:3]))
    assert len(epochs) == 2, "once"
    assert list(summary["run"]) == ["first", "twice"]
    assert summary["dev_dice"].nunique() == 1
    assert summary["tuned_j20"].nunique() == 2


def test_every_run_is_asked_with_boxes_of_the_experiments_kind(place, monkeypatch):
    """A base that is scored as it is, and a run: one box round all, or one a disc."""
    asked, score = [], engine.evaluate
    monkeypatch.setattr(engine, "evaluate", lambda *a, **k: asked.append(k["box_mode"]) or score(*a, **k))
    each = variant(place, "each", 'data = "data"', 'data = "data"\nbox_mode = "components"')
    for experiment in (each, read_experiment("val", place)):
        record(experiment.but(trials=experiment.trials[:2]), experiment.name)
    assert asked == ["components", "components", "union", "union"]
    assert [card_of(name).get("box_mode") for name in ("each", "val")] == ["components", None]


def test_a_run_can_be_scored_on_its_own_set_with_other_boxes_too(place, monkeypatch, trained):
    """As a set of its own, of the weights that are there: one box a disc, where it was trained with one round all."""
    experiment = read_experiment("val", place)
    first = experiment.trials[1]
    record(experiment.but(trials=(first,)))
    asked, score = [], runner.evaluate_together
    monkeypatch.setattr(runner, "evaluate_together", lambda *a, **k: asked.append(k["box_mode"]) or score(*a, **k))
    summary = record(experiment.but(trials=(first.but(also_with="components"),)), only_missing=True)
    assert (asked, len(trained)) == (["components"], 1)
    assert list(summary["tested_on"]) == ["data", "data+components"]
    assert list(summary["n_scored"]) == [4, 4]
    assert len(runs_as_models("results", "data+components")) == len(runs_as_models("results", "data"))


ACROSS = """
title = "tiny, across"
data = "near"
prompts = ["exact", "j20"]
runs = [
    { name = "folds", folds = 3, train_with = { far = 2 }, also_on = { far = "val" } },
    { name = "far only", data = "far", recipe = "lora", also_on = { near = "all" } },
]
[defaults]
model = "tiny"
recipe = "quick"
change = { epochs = 1, precision = "fp32", loss = "dice_bce", batch = 2 }
"""


@pytest.fixture
def across(place):
    """An experiment on `near`, 7 cases and no split, and `far`, 8 train and 3 val cases; where both lie."""
    save_images(draw_discs(7), place / "near_folder")
    renamed = {f"far-{index}": case for index, case in enumerate(draw_discs(11, seed=1))}
    far = Cases(list(renamed), lambda name: Case(name, renamed[name].image, renamed[name].mask))
    save_images(far, place / "far_folder", n_train=8)
    (place / "across.toml").write_text(ACROSS)
    experiment = read_experiment("across", place)
    return experiment, sources_of(experiment, ["near_folder", "far=far_folder"])


def test_folds_of_one_set_training_with_another_scores_on_both(across, monkeypatch):
    experiment, sources = across
    summary = record(experiment, sources=sources)
    assert list(summary["run"]) == ["folds"] * 6 + ["far only"] * 2
    assert list(summary["tested_on"]) == ["near", "far"] * 3 + ["far", "near"]
    # 7 cases in parts of 3, 2 and 2: of the others one is dev, the rest train, with 2 of far.
    assert list(summary["n_train"]) == [5, 5, 6, 6, 6, 6, 7, 7]
    assert list(summary["n_scored"]) == [3, 3, 2, 3, 2, 3, 3, 7]

    table = pd.read_csv("results/metrics.csv")
    tuned = table[(table["model"] == "tuned") & (table["prompt"] == "j20")].set_index(["run", "tested_on"])
    assert sorted(tuned.loc[("folds", "near"), "case"]) == [f"disc-{index}" for index in range(7)], "each case once"
    far = tuned.loc[("folds", "far")].groupby("fold")["case"].apply(sorted).tolist()
    assert far == [["far-10", "far-8", "far-9"]] * 3
    near = tuned.loc[("far only", "near")]
    assert set(near["case"]) == {f"disc-{index}" for index in range(7)}
    assert summary.iloc[-1]["tuned_j20"] == pytest.approx(near["dice"].mean(), abs=1e-5)

    monkeypatch.setattr(engine, "fit", None)  # nothing is trained again, nothing is scored again
    monkeypatch.setattr(runner, "evaluate_together", None)
    pd.testing.assert_frame_equal(record(experiment, sources=sources), summary)


def test_what_was_not_scored_on_the_other_set_is_scored_there_and_not_trained_again(across, monkeypatch, trained):
    experiment, sources = across
    scored = runner.evaluate_together
    monkeypatch.setattr(runner, "evaluate_together", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        record(experiment, sources=sources)
    monkeypatch.setattr(runner, "evaluate_together", scored)
    alone = experiment.but(trials=tuple(trial.but(also_on={}) for trial in experiment.trials))
    assert len(record(alone, sources=sources)) == 4
    assert len(record(experiment, sources=sources, only_missing=True)) == 8
    assert len(set(trained)) == len(trained) == 4, "the first fold was trained before the stop"


def test_the_place_of_each_data_set_can_be_given(across):
    experiment, _ = across
    with pytest.raises(ConfigError, match="data set 'near' cannot be fetched: pass its folder with --data near=FOLDER"):
        sources_of(experiment, ["far=far_folder"])
    with pytest.raises(ConfigError, match="--data fra=far_folder: across uses near, far"):
        sources_of(experiment, ["fra=far_folder"])
