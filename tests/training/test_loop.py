"""Training: it learns, it resumes in the same weights."""

import copy
import math

import numpy as np
import pytest
import torch
from helpers import StopAt, draw_discs, embedded, make_tiny_sam, stored_run
from safetensors.torch import load_file

from medsam_helpers.data.views import views_of
from medsam_helpers.errors import ConfigError, TrainingError
from medsam_helpers.sam.tuned import part_state
from medsam_helpers.sam.unfrozen import unfrozen
from medsam_helpers.training import loop
from medsam_helpers.training.loop import fit, learning_rate
from medsam_helpers.training.losses import get_loss
from medsam_helpers.training.recipes import RECIPES, Recipe, get_recipe
from medsam_helpers.training.state import STATE_FILE

RECIPE = Recipe(name="test", lr=1e-3, epochs=3, batch=2, precision="fp32")


@pytest.fixture
def setting(tmp_path):
    """A tiny model, 7 training and 3 dev cases, their embeddings."""
    model, cases = make_tiny_sam(), draw_discs(10)
    return model, cases[:7], cases[7:], embedded(model, cases, tmp_path / "embeddings").store


def train(setting, output, recipe=RECIPE, **options):
    model, train_cases, dev, store = setting
    model = copy.deepcopy(model)
    return model, fit(model, train_cases, dev, recipe, store, output, **{"show_progress": False} | options)


def weights_of(model):
    return part_state(model, ["mask_decoder"])


def changed(before, after):
    """Names of the weights of a state that training changed."""
    return {key for key in after if not torch.equal(after[key], before[key])}


def group_of(folder, group):
    """The tensors of one group of a stored state: current, best or average."""
    state = load_file(folder / STATE_FILE).items()
    return {key.removeprefix(f"{group}/"): value for key, value in state if key.startswith(f"{group}/")}


def assert_same(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_training_lowers_the_loss_and_leaves_the_encoder_alone(setting, tmp_path):
    model, result = train(setting, tmp_path / "run", RECIPE.but(epochs=15, lr=3e-3))
    history = result.history
    assert list(history["epoch"]) == list(range(16))
    assert np.isnan(history["loss"][0]), "epoch 0 is the model before training"
    assert history["loss"].iloc[-1] < 0.7 * history["loss"][1]
    assert result.best_dev_dice > history["dev_dice"][0] + 0.1
    assert {key.split(".")[0] for key in changed(setting[0].state_dict(), model.state_dict())} == {"mask_decoder"}
    assert result.best_epoch == history["dev_dice"].idxmax()
    assert_same(weights_of(model), group_of(tmp_path / "run", "best"))
    still, result = train(setting, tmp_path / "no better", RECIPE.but(epochs=20, lr=1e-12, patience=2))
    assert (result.best_epoch, len(result.history)) == (0, 3), "epoch 0 stays the best, so epoch 2 is the last"
    assert_same(weights_of(still), weights_of(setting[0]))


FROM_PIXELS = {"trainable": get_recipe("lora").trainable, "augment": True}
STOPS = [(1, {}, 10), (20, {"accumulation": 3}, 10), (20, {"ema_decay": 0.9}, 0), (20, FROM_PIXELS, 10)]


@pytest.mark.parametrize(("lookups", "changes", "minutes"), STOPS, ids=["at once", "batches", "average", "LoRA"])
def test_a_resumed_run_ends_in_the_same_weights(setting, tmp_path, monkeypatch, capsys, lookups, changes, minutes):
    recipe = RECIPE.but(warmup_steps=2, **changes)
    model = unfrozen(setting[0], recipe.as_dict())
    model.mask_decoder.activation = torch.nn.Dropout(0.1)  # as in the automatic head, and in LoRA on request
    setting = (model, *setting[1:3], embedded(model, draw_discs(10), tmp_path / "embeddings").store)
    whole, expected = train(setting, tmp_path / "whole", recipe)
    monkeypatch.setattr(loop, "SAVE_MINUTES", minutes)
    with pytest.raises(KeyboardInterrupt):
        train((*setting[:3], StopAt(setting[3], lookups)), tmp_path / "stopped", recipe)
    amid = (tmp_path / "stopped" / STATE_FILE).exists() and stored_run(tmp_path / "stopped" / STATE_FILE)["losses"]
    assert bool(amid) == (minutes == 0), "a state amid an epoch"
    resumed, result = train(setting, tmp_path / "stopped", recipe, show_progress=True)
    assert ("a run that was stopped goes on: epoch" in capsys.readouterr().err) == (lookups > 1)
    assert_same(weights_of(resumed), weights_of(whole))
    assert_same(*(load_file(tmp_path / name / STATE_FILE) for name in ("whole", "stopped")))
    assert result.history.drop(columns="seconds").equals(expected.history.drop(columns="seconds"))
    train(setting, tmp_path / "other seed", recipe, seed=2)
    assert changed(*(group_of(tmp_path / name, "current") for name in ("whole", "other seed")))


def test_what_dev_scores_and_what_is_kept_is_the_average_and_training_goes_on_from_its_own_weights(setting, tmp_path):
    plain, _ = train(setting, tmp_path / "plain")
    averaged, result = train(setting, tmp_path / "averaged", RECIPE.but(ema_decay=0.9))
    assert_same(group_of(tmp_path / "plain", "current"), group_of(tmp_path / "averaged", "current"))
    kept, average = weights_of(averaged), group_of(tmp_path / "averaged", "average")
    assert result.best_epoch == RECIPE.epochs
    assert_same({name: kept[name] for name in average}, average)
    assert not torch.equal(averaged.mask_decoder.iou_token.weight, plain.mask_decoder.iou_token.weight)


def test_a_finished_run_returns_at_once_and_its_folder_is_refused_to_another(setting, tmp_path):
    model, first = train(setting, tmp_path / "run")
    before = (tmp_path / "run" / STATE_FILE).read_bytes()
    again, second = train(setting, tmp_path / "run")
    assert_same(weights_of(model), weights_of(again))
    assert second.history.equals(first.history)
    with pytest.raises(ConfigError, match=r"holds a run with other settings \(lr is 0.001, asked for 0.002\)"):
        train(setting, tmp_path / "run", RECIPE.but(lr=2e-3))
    assert (tmp_path / "run" / STATE_FILE).read_bytes() == before


def test_accumulated_batches_are_one_large_batch(setting, tmp_path):
    model, cases, dev, store = setting
    six, recipe = (model, cases[:6], dev, store), RECIPE.but(epochs=1, loss="bce")  # a mean over the cases
    small, _ = train(six, tmp_path / "small", recipe.but(batch=2, accumulation=3))
    large, _ = train(six, tmp_path / "large", recipe.but(batch=6))
    torch.testing.assert_close(weights_of(small), weights_of(large), atol=1e-4, rtol=1e-3)


def test_recipes_of_several_precisions_train_in_one_process_each_in_its_own(setting, tmp_path):
    half, full = (train(setting, tmp_path / name, RECIPE.but(precision=name))[1] for name in ("bf16", "fp32"))
    assert (half.precision, full.precision) == ("bf16", "fp32")
    assert half.history["loss"][1] != full.history["loss"][1]
    assert half.history["dev_dice"][0] == full.history["dev_dice"][0], "dev is scored in float32"
    assert half.history["loss"][1] == pytest.approx(full.history["loss"][1], rel=0.05)


def test_in_fp16_a_loss_that_overflows_costs_a_step_not_the_run(setting, tmp_path, monkeypatch):
    steps = []

    def overflows_first(logits, target):
        steps.append(len(steps))
        return get_loss("dice_bce")(logits, target) * (math.inf if steps == [0] else 1)

    overflows_first.version = "1"
    monkeypatch.setattr(loop, "effective_precision", lambda *_: "fp16")  # else a CPU takes fp32, without a scaler
    _, result = train(setting, tmp_path / "run", RECIPE.but(loss=overflows_first))
    assert np.isfinite(result.history["loss"][1:]).all()
    assert len(steps) == 4 * RECIPE.epochs


# A U-Net's recipe augments pixels, and the last stage is a part of partially unfrozen models.
OTHERS = {"last_stage", "automatic_head"}
OF_A_SAM = [name for name, recipe in RECIPES.items() if not recipe.augment and OTHERS.isdisjoint(recipe.trainable)]


@pytest.mark.parametrize("name", OF_A_SAM)
def test_every_recipe_trains(setting, tmp_path, name):
    recipe = get_recipe(name).but(epochs=1, precision="fp32")
    embedded(setting[0], views_of(setting[1], recipe.views), setting[3].folder.parent)
    _, result = train(setting, tmp_path / "run", recipe)
    assert np.isfinite(result.history["loss"][1])
    assert result.history["lr"][1] > 0


def test_the_rate_rises_and_falls_as_the_recipe_says():
    recipe = RECIPE.but(lr=1.0, lr_min=0.1, warmup_steps=4)
    rates = [learning_rate(step, 24, recipe) for step in (0, 1, 2, 3, 4, 14, 24)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 0.55, 0.1])


def test_the_loss_at_a_larger_size_is_another_loss_and_at_the_decoders_own_the_same(setting, tmp_path):
    runs = [train(setting, tmp_path / str(size), RECIPE.but(loss_size=size))[1] for size in (None, 64, 128)]
    plain, own, fine = (list(result.history["loss"][1:]) for result in runs)
    assert own == plain
    assert fine[0] != plain[0]
    assert fine[-1] < fine[0]


def test_a_run_takes_a_readers_own_loss_optimiser_schedule_and_metric(setting, tmp_path):
    def specificity(prediction, reference):
        assert prediction.shape == reference.shape
        assert prediction.dtype == reference.dtype == bool
        return 1 - prediction[~reference].mean()

    own = RECIPE.but(
        loss=lambda logits, target: (logits.sigmoid() - target).abs().mean(),
        schedule=lambda step, total_steps, recipe: recipe.lr * 0.5**step,
        metric=specificity,
        optimizer=lambda parameters, lr, weight_decay: torch.optim.SGD(parameters, lr, momentum=0.9),
        epochs=1,
    )
    model, result = train(setting, tmp_path / "run", own)
    assert list(result.history.columns) == ["epoch", "loss", "lr", "seconds", "dev_dice", "dev_score"]
    assert result.best_epoch == result.history["dev_score"].idxmax()
    assert result.best_dev_dice == result.history["dev_dice"][result.best_epoch]
    assert result.history["lr"][1] == RECIPE.lr * 0.5**3, "the fourth step's"
    assert {key.split("/")[1] for key in group_of(tmp_path / "run", "optimizer")} == {"momentum_buffer"}
    assert_same(weights_of(model), weights_of(train(setting, tmp_path / "run", own)[0]))


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ({"loss": lambda z, t: (z - t) ** 2}, "the loss must return a scalar tensor"),
        ({"loss": lambda z, t: (z > 0).float().mean()}, "a scalar tensor that has a gradient"),
        ({"loss": lambda z, t: (z - t).mean() * float("inf")}, "epoch 1: the loss is .*lower learning rate"),
        ({"optimizer": lambda parameters, lr, decay: None}, "the optimizer must return a torch.optim.Optimizer"),
        ({"metric": lambda p, r: float("nan")}, "disc-7: the metric must return a finite number"),
    ],
)
def test_an_own_part_that_returns_something_else_is_told_at_the_first_step(setting, tmp_path, part, told):
    with pytest.raises(TrainingError, match=told):
        train(setting, tmp_path / "run", RECIPE.but(**part))


def test_a_prompt_encoder_trains_too_and_is_kept(setting, tmp_path):
    both = RECIPE.but(trainable=("mask_decoder", "prompt_encoder"), epochs=1)
    names = changed(setting[0].state_dict(), train(setting, tmp_path / "run", both)[0].state_dict())
    assert {key.split(".")[0] for key in names} == {"mask_decoder", "prompt_encoder"}
    assert not [key for key in names if "shared" in key], "the positional code is fixed"
    assert group_of(tmp_path / "run", "best").keys() >= names
