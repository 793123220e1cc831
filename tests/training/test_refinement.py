"""Iterative training: how a batch is prompted, and the clicks that correct its answer."""

import numpy as np
import pytest
import torch
from helpers import draw_discs, embedded, make_tiny_sam

from medsam_helpers.training.loop import fit
from medsam_helpers.training.recipes import Recipe
from medsam_helpers.training.refinement import planned, with_clicks

RECIPE = Recipe(name="test", prompts=("box", "box", "point"), rounds=2, mask_only=0.25)


def test_kinds_come_as_often_as_they_are_named_and_rounds_up_to_the_largest():
    plans = [planned(RECIPE, 0, 1, number) for number in range(600)]
    kinds, rounds = zip(*plans, strict=True)
    assert kinds.count("box") == pytest.approx(400, abs=40)
    lengths = [len(each) for each in rounds]
    assert [lengths.count(number) for number in range(4)] == [pytest.approx(200, abs=40)] * 3 + [0]
    clicks = [click for each in rounds for click in each]
    assert np.mean(clicks) == pytest.approx(0.75, abs=0.06)
    assert plans[7] == planned(RECIPE, 0, 1, 7)
    assert plans != [planned(RECIPE, 0, 2, number) for number in range(600)], "another epoch, another draw"
    assert planned(RECIPE.but(prompts="none"), 0, 1, 0) == ("none", [])


def test_each_correction_adds_a_click_on_the_mistake_in_the_model_space():
    target = np.zeros((2, 64, 64), bool)
    target[0, 10:20, 30:50] = target[1, 40:60, 5:15] = True
    found = target.copy()
    found[0, 10:20, 30:48] = False  # most of it missed
    found[1, :8, 40:64] = True  # a false alarm
    prompts = {"image_embeddings": torch.zeros(2, 1), "input_boxes": torch.zeros(2, 1, 4)}
    draws = [np.random.default_rng(0), np.random.default_rng(1)]
    once = with_clicks(prompts, found, target, 128, draws)
    assert once["input_labels"].tolist() == [[[1]], [[0]]]
    (x, y), (other_x, other_y) = once["input_points"][:, 0, 0].tolist()
    assert 60 <= x < 96
    assert 20 <= y < 40
    assert 80 <= other_x < 128
    assert 0 <= other_y < 16
    twice = with_clicks(once, target, target, 128, draws)
    assert torch.equal(twice["input_points"][:, :, :1], once["input_points"]), "those before stay"
    assert twice["input_labels"].tolist() == [[[1, 1]], [[0, 1]]], "nothing is wrong: a click on the lesion"
    assert torch.equal(twice["input_boxes"], prompts["input_boxes"])


def trained(tmp_path, **changes):
    """History and state of a short training with corrections."""
    cases = draw_discs(6)
    recipe = RECIPE.but(epochs=2, batch=2, lr=1e-3, precision="fp32", **changes)
    model, folder = make_tiny_sam(), tmp_path / "-".join(map(str, changes.values()))
    store = embedded(model, cases, tmp_path / "embeddings").store
    return model, fit(model, cases[:4], cases[4:], recipe, store, folder, show_progress=False)


def test_training_with_corrections_is_another_training_and_repeats_itself(tmp_path):
    runs = [trained(tmp_path / name, rounds=rounds) for name, rounds in (("a", 2), ("b", 2), ("c", 0))]
    (one, first), (two, _), (other, _) = runs
    assert np.isfinite(first.history["loss"][1:]).all()
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_the_guess_of_its_own_iou_trains_on_request_only(tmp_path):
    before = make_tiny_sam().mask_decoder.iou_prediction_head.state_dict()
    for weight in (0.0, 1.0):
        model, _ = trained(tmp_path, score_weight=weight)
        after = model.mask_decoder.iou_prediction_head.state_dict()
        assert any(not torch.equal(after[name], before[name]) for name in before) == bool(weight)
