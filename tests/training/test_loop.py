"""Training: it learns, it resumes in the same weights, and two processes take the steps of one."""

import copy
import itertools
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import draw_discs, make_tiny_sam
from safetensors.torch import load_file

from medsam_helpers.data.case import Case
from medsam_helpers.data.views import LIGHTS, TURNS, VIEWS, view_of, views_of
from medsam_helpers.errors import CheckpointError, ConfigError, DataError, TrainingError
from medsam_helpers.runs.finetune import embed_cases
from medsam_helpers.sam.embeddings import EmbeddingStore
from medsam_helpers.sam.loading import model_info
from medsam_helpers.sam.segmenter import Segmenter
from medsam_helpers.sam.tuned import part_state
from medsam_helpers.training.dataset import PromptedCases
from medsam_helpers.training.loop import fit, learning_rate
from medsam_helpers.training.recipes import RECIPES, Recipe, get_recipe
from medsam_helpers.training.state import STATE_FILE

RECIPE = Recipe("test", "", lr=1e-3, epochs=3, batch=2, precision="fp32")
TESTS = Path(__file__).parent


@pytest.fixture
def setting(tmp_path):
    """A tiny model, 7 training and 3 dev cases, their embeddings."""
    return make_setting(tmp_path / "embeddings")


def make_setting(root):
    model, cases = make_tiny_sam(), draw_discs(10)
    segmenter = Segmenter(model, "cpu", precision="fp32")
    segmenter.store = EmbeddingStore.for_model(segmenter.info, "fp32", root)
    embed_cases(segmenter, cases, show_progress=False)
    return model, cases[:7], cases[7:], segmenter.store


def train(setting, output, recipe=RECIPE, **options):
    model, train_cases, dev, store = setting
    model = copy.deepcopy(model)
    return model, fit(model, train_cases, dev, recipe, store, output, show_progress=False, **options)


def weights_of(model):
    return part_state(model, ["mask_decoder"])


def assert_same(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_training_lowers_the_loss_and_leaves_the_encoder_alone(setting, tmp_path):
    before = setting[0].state_dict()
    model, result = train(setting, tmp_path / "run", RECIPE.but(epochs=15, lr=3e-3))
    history = result.history
    assert list(history.columns) == ["epoch", "loss", "lr", "seconds", "dev_dice"]
    assert list(history["epoch"]) == list(range(16))
    assert np.isnan(history["loss"][0]), "epoch 0 is the model before training"
    assert history["loss"].iloc[-1] < 0.7 * history["loss"][1]
    assert result.best_dev_dice > history["dev_dice"][0] + 0.1
    after = model.state_dict()
    changed = {key.split(".")[0] for key in after if not torch.equal(after[key], before[key])}
    assert changed == {"mask_decoder"}


def test_the_model_ends_with_the_weights_of_the_best_epoch(setting, tmp_path):
    model, result = train(setting, tmp_path / "run", RECIPE.but(epochs=4, lr=5e-3))
    assert result.best_epoch == result.history["dev_dice"].idxmax()
    _, short = train(setting, tmp_path / "short", RECIPE.but(epochs=4, lr=5e-3))
    best = load_file(tmp_path / "run" / STATE_FILE)
    assert_same(weights_of(model), {k.removeprefix("best/"): v for k, v in best.items() if k.startswith("best/")})
    assert short.best_dev_dice == result.best_dev_dice


def test_a_run_that_gets_worse_keeps_the_zero_shot_weights(setting, tmp_path):
    model, result = train(setting, tmp_path / "run", RECIPE.but(epochs=2, lr=1e-12))
    assert result.best_epoch == 0
    assert_same(weights_of(model), weights_of(setting[0]))


def test_equal_seeds_end_in_equal_weights_and_others_do_not(setting, tmp_path):
    runs = [train(setting, tmp_path / name, seed=seed)[0] for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    assert_same(weights_of(runs[0]), weights_of(runs[1]))
    assert not torch.equal(runs[0].mask_decoder.iou_token.weight, runs[2].mask_decoder.iou_token.weight)


class StopAt:
    """A store that interrupts the run at its n-th look-up."""

    def __init__(self, store, lookups):
        self.store, self.left = store, lookups

    def __getattr__(self, name):
        return getattr(self.store, name)

    def __contains__(self, digest):
        return digest in self.store

    def __getitem__(self, digest):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return self.store[digest]


@pytest.mark.parametrize("lookups", [1, 5, 13, 20, 30], ids="lookup {}".format)
@pytest.mark.parametrize("changes", [{"accumulation": 1}, {"accumulation": 3}, {"ema_decay": 0.9}], ids=str)
def test_an_interrupted_run_ends_in_the_weights_of_an_uninterrupted_one(setting, tmp_path, lookups, changes):
    recipe = RECIPE.but(warmup_steps=2, **changes)
    whole, expected = train(setting, tmp_path / "whole", recipe)
    model, train_cases, dev, store = setting
    with pytest.raises(KeyboardInterrupt):
        train((model, train_cases, dev, StopAt(store, lookups)), tmp_path / "stopped", recipe)
    resumed, result = train(setting, tmp_path / "stopped", recipe)
    assert_same(weights_of(resumed), weights_of(whole))
    last = [load_file(tmp_path / name / STATE_FILE) for name in ("whole", "stopped")]
    assert_same(*last)
    columns = ["epoch", "loss", "lr", "dev_dice"]
    assert result.history[columns].equals(expected.history[columns])


def test_what_dev_scores_and_what_is_kept_is_the_average_and_training_goes_on_from_its_own_weights(setting, tmp_path):
    plain, _ = train(setting, tmp_path / "plain")
    averaged, result = train(setting, tmp_path / "averaged", RECIPE.but(ema_decay=0.9))
    states = [load_file(tmp_path / name / STATE_FILE) for name in ("plain", "averaged")]
    ends = [{k: v for k, v in state.items() if k.startswith("current/")} for state in states]
    assert_same(*ends)
    kept = weights_of(averaged)
    average = {k.removeprefix("average/"): v for k, v in states[1].items() if k.startswith("average/")}
    assert result.best_epoch == RECIPE.epochs
    assert_same({name: kept[name] for name in average}, average)
    assert not torch.equal(kept["mask_decoder.iou_token.weight"], weights_of(plain)["mask_decoder.iou_token.weight"])


SCRIPT = """
    import os, signal, sys
    from pathlib import Path
    sys.path[:0] = [{tests!r}, str(Path({tests!r}).parent)]
    from test_loop import RECIPE, StopAt, make_setting, train
    root = Path({root!r})
    setting = make_setting(root / "embeddings")
    class KillAt(StopAt):
        def __getitem__(self, digest):
            try:
                return super().__getitem__(digest)
            except KeyboardInterrupt:
                os.kill(os.getpid(), signal.SIGKILL)
    {body}
"""


def run_script(root, body, *launcher):
    script = root / "script.py"
    script.write_text(textwrap.dedent(SCRIPT).format(tests=str(TESTS), root=str(root), body=body))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *launcher, str(script)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_killed_run_ends_in_the_weights_of_an_uninterrupted_one(setting, tmp_path):
    body = 'model, cases, dev, store = setting; train((model, cases, dev, KillAt(store, 20)), root / "run")'
    killed = run_script(tmp_path, body)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not list((tmp_path / "run").glob(".*")), "nothing half-written stays"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the killed process: sums round alike
    try:
        whole, _ = train(setting, tmp_path / "whole")
        resumed, _ = train(setting, tmp_path / "run")
    finally:
        torch.set_num_threads(threads)
    assert_same(weights_of(resumed), weights_of(whole))


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(tmp_path):
    root = tmp_path / "two"
    root.mkdir()
    body = 'train(setting, root / "run", RECIPE.but(batch=4))'
    launcher = ("-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=0", "--standalone")
    done = run_script(root, body, *launcher)
    assert done.returncode == 0, done.stderr[-2000:]
    one = tmp_path / "one"
    one.mkdir()
    assert run_script(one, body).returncode == 0
    first, second = (load_file(folder / "run" / STATE_FILE) for folder in (one, root))
    current = [key for key in first if key.startswith("current/")]
    for key in current:
        torch.testing.assert_close(first[key], second[key], atol=2e-4, rtol=1e-2)
    start = weights_of(make_tiny_sam())
    moved = max((first[key] - start[key.removeprefix("current/")]).abs().max().item() for key in current)
    assert moved > 1e-3, "the tolerance must be small against what training moved"


def test_a_finished_run_returns_at_once(setting, tmp_path):
    model, first = train(setting, tmp_path / "run")
    _, train_cases, dev, store = setting
    again, second = train((setting[0], train_cases, dev, store), tmp_path / "run")
    assert_same(weights_of(model), weights_of(again))
    assert second.history.equals(first.history)


def test_the_folder_of_another_run_is_refused_not_overwritten(setting, tmp_path):
    train(setting, tmp_path / "run")
    before = (tmp_path / "run" / STATE_FILE).read_bytes()
    with pytest.raises(ConfigError, match=r"holds a run with other settings \(lr is 0.001, asked for 0.002\)"):
        train(setting, tmp_path / "run", RECIPE.but(lr=2e-3))
    with pytest.raises(ConfigError, match="seed is 0, asked for 3"):
        train(setting, tmp_path / "run", seed=3)
    assert (tmp_path / "run" / STATE_FILE).read_bytes() == before


def test_a_damaged_state_is_named(setting, tmp_path):
    train(setting, tmp_path / "run", RECIPE.but(epochs=1))
    path = tmp_path / "run" / STATE_FILE
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=r"damaged training state .* delete it to start anew"):
        train(setting, tmp_path / "run", RECIPE.but(epochs=1))


def test_early_stopping_waits_as_long_as_it_was_told(setting, tmp_path):
    _, result = train(setting, tmp_path / "run", RECIPE.but(epochs=20, lr=1e-12, patience=2))
    assert len(result.history) == 3, "epoch 0 stays the best, so epoch 2 is the last"


def test_accumulated_batches_are_one_large_batch(setting, tmp_path):
    """With sums of equal sizes, 3 x 2 cases a step are the 6 of one; the loss is a mean over samples."""
    model, cases, dev, store = setting
    six = (model, cases[:6], dev, store)
    recipe = RECIPE.but(epochs=1, loss="bce")
    small, _ = train(six, tmp_path / "small", recipe.but(batch=2, accumulation=3))
    large, _ = train(six, tmp_path / "large", recipe.but(batch=6))
    for key, value in load_file(tmp_path / "small" / STATE_FILE).items():
        if key.startswith("current/"):
            other = load_file(tmp_path / "large" / STATE_FILE)[key]
            torch.testing.assert_close(value, other, atol=1e-4, rtol=1e-3)
    del small, large


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_the_effective_precision_is_recorded(setting, tmp_path, precision):
    _, result = train(setting, tmp_path / "run", RECIPE.but(epochs=1, precision=precision))
    assert result.precision == precision
    assert np.isfinite(result.history["loss"][1])


def test_fp16_without_cuda_trains_in_fp32_and_says_so(setting, tmp_path):
    with pytest.warns(UserWarning, match="fp16 needs CUDA"):
        _, result = train(setting, tmp_path / "run", RECIPE.but(epochs=1, precision="fp16"))
    assert result.precision == "fp32"


# A U-Net's recipe augments pixels, and the last stage is a part of models that are cut before it.
OF_A_SAM = [name for name, recipe in RECIPES.items() if not recipe.augment and "last_stage" not in recipe.trainable]


@pytest.mark.parametrize("name", OF_A_SAM)
def test_every_recipe_trains(setting, tmp_path, name):
    model, cases, _, store = setting
    recipe = get_recipe(name).but(epochs=1, precision="fp32")
    segmenter = Segmenter(model, "cpu", precision="fp32", store=store)
    embed_cases(segmenter, views_of(cases, recipe.views), show_progress=False)
    _, result = train(setting, tmp_path / "run", recipe)
    assert np.isfinite(result.history["loss"][1])
    assert result.history["lr"][1] > 0


def test_augmentation_needs_pixels_and_a_sam_has_embeddings(setting, tmp_path):
    with pytest.raises(ConfigError, match="augment changes pixels, and this model is trained on cached embeddings"):
        train(setting, tmp_path / "run", get_recipe("unet"))


def test_a_loss_that_is_no_number_stops_the_run_and_says_what_to_do(setting, tmp_path):
    model, cases, dev, store = setting
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.mask_decoder.iou_token.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"epoch 1: the loss is nan.*lower learning rate"):
        train((broken, cases, dev, store), tmp_path / "run")


def test_nothing_to_train_on_is_said(setting, tmp_path):
    model, cases, dev, store = setting
    with pytest.raises(DataError, match="needs cases in train and in dev, got 0 and 3"):
        train((model, cases[:0], dev, store), tmp_path / "run")
    empty = EmbeddingStore(tmp_path / "empty", {})
    with pytest.raises(DataError, match="disc-0: no embedding of this image"):
        train((model, cases, dev, empty), tmp_path / "run")


# --- examples and schedule ---


def test_a_box_moves_each_epoch_and_the_target_is_what_it_asks_for(setting):
    model, cases, _, store = setting
    examples = PromptedCases(cases, store, model_info(model).transform, 20, "union", seed=0)
    first = examples[2]
    assert first["image_embeddings"].shape == (32, 16, 16)
    assert first["input_boxes"].shape == (1, 4)
    assert first["target"].shape == (1, 64, 64)
    assert torch.equal(first["target"][0], model_info(model).transform(cases[2].size_hw).mask_to_target(cases[2].mask))
    assert torch.equal(examples[2]["input_boxes"], first["input_boxes"])
    examples.epoch = 1
    assert not torch.equal(examples[2]["input_boxes"], first["input_boxes"])


def test_components_show_each_lesion_with_its_own_target(setting):
    from medsam_helpers.data.case import Case, Cases

    model, cases, _, store = setting
    mask = np.zeros(cases[0].size_hw, bool)
    mask[5:20, 5:20] = mask[30:50, 30:55] = True
    two = Cases(["two"], lambda name: Case(name, cases[0].image, mask))
    examples = PromptedCases(two, store, model_info(model).transform, 0, "components", seed=0)
    seen = set()
    for epoch in range(20):
        examples.epoch = epoch
        example = examples[0]
        x0, y0, x1, y1 = example["input_boxes"][0].tolist()
        scale = 128 / 64
        rows, columns = np.nonzero(example["target"][0].numpy())
        assert abs(columns.min() * scale - x0) <= scale
        assert abs((rows.max() + 1) * scale - y1) <= scale
        seen.add((x0, y0, x1, y1))
    assert len(seen) == 2


def test_images_with_several_lesions_may_come_more_often_each_time_with_another_box(setting):
    _, cases, _, store = setting
    mask = cases[1].mask.copy()
    mask[:4, :4] = True  # a second lesion, of more than a ten-thousandth of the image
    train_cases = [cases[0], Case(cases[1].name, cases[1].image, mask)]
    examples = PromptedCases(train_cases, store, model_info(setting[0]).transform, 20, "union", 0, oversampling=3)
    assert len(examples) == 4
    assert examples.digests == [case.digest for case in (train_cases[0], *[train_cases[1]] * 3)]
    boxes = {tuple(examples[index]["input_boxes"][0].tolist()) for index in range(1, 4)}
    assert len(boxes) == 3
    assert all(torch.equal(examples[1]["target"], examples[index]["target"]) for index in (2, 3))


def test_the_rate_rises_and_falls_as_the_recipe_says():
    recipe = Recipe("r", "", lr=1.0, lr_min=0.1, warmup_steps=4)
    rates = [learning_rate(step, 24, recipe) for step in range(25)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[14] == pytest.approx(0.55)
    assert rates[24] == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(rates[4:]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0}, "lr must be greater than 0"),
        ({"epochs": -1}, "epochs must be greater than 0"),
        ({"jitter_1024": -5}, "jitter_1024 must not be negative"),
        ({"lr": float("inf")}, "greater than 0 and finite"),
        ({"jitter_1024": float("nan")}, "jitter_1024 must not be negative, is nan"),
        ({"box_mode": "both"}, "box_mode 'both' is unknown: use union or components"),
        ({"ema_decay": 1}, "ema_decay must be from 0 up and below 1, is 1"),
        ({"loss_size": 0}, "loss_size must be greater than 0, or None for the decoder's own, is 0"),
        ({"loss": "hinge"}, "loss 'hinge' is unknown: use"),
        ({"precision": "int8"}, "precision 'int8' is unknown"),
        ({"trainable": ("vision_encoder",)}, "its embeddings are cached"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        RECIPE.but(**change)


def test_an_unknown_recipe_lists_what_there_is():
    with pytest.raises(ConfigError, match="recipe 'magic' is unknown: use quick, best, guide, sam, medsam"):
        get_recipe("magic")


def test_views_show_each_case_in_every_view_with_its_own_embedding_and_target(setting):
    model, cases, _, store = setting
    views = tuple(VIEWS)
    segmenter = Segmenter(model, "cpu", precision="fp32", store=store)
    assert embed_cases(segmenter, views_of(cases, views), show_progress=False)[0] == 7 * len(cases), "as-is was there"
    examples = PromptedCases(cases, store, model_info(model).transform, 0, "union", seed=0, views=views)
    seen = set()
    for examples.epoch in range(80):
        for index, case in enumerate(cases):
            example = examples[index]
            shown = [view_of(case, view) for view in views]
            targets = [model_info(model).transform(one.size_hw).mask_to_target(one.mask) for one in shown]
            stored = [store[one.image_digest].float() for one in shown]
            (which,) = (k for k, features in enumerate(stored) if torch.equal(features, example["image_embeddings"]))
            torch.testing.assert_close(example["target"][0], targets[which])
            seen.add((index, which))
    assert len(seen) == len(views) * len(cases)


def test_views_without_their_embeddings_are_refused(setting):
    model, cases, _, store = setting
    with pytest.raises(DataError, match="mirrored: no embedding of this image"):
        PromptedCases(cases, store, model_info(model).transform, 0, "union", seed=0, views=("as-is", "mirrored"))


@pytest.mark.parametrize("view", [view for view in TURNS if "quarter" not in view])
def test_a_view_twice_is_the_case_itself(view):
    case = draw_discs(1)[0]
    twice = view_of(view_of(case, view), view)
    assert twice.digest == case.digest
    assert (view_of(case, view).digest == case.digest) == (view == "as-is")


def test_quarter_turns_move_every_pixel_as_by_hand():
    image = np.arange(6, dtype=np.uint8).reshape(2, 3)[..., None].repeat(3, axis=2)
    case = Case("a", image, image[..., 0] == 2)  # the pixel at the top right
    left, right = view_of(case, "quarter-left"), view_of(case, "quarter-right")
    assert left.image[..., 0].tolist() == [[2, 5], [1, 4], [0, 3]]
    assert right.image[..., 0].tolist() == [[3, 0], [4, 1], [5, 2]]
    assert np.argwhere(left.mask).tolist() == [[0, 0]]
    assert np.argwhere(right.mask).tolist() == [[2, 1]]
    assert view_of(left, "quarter-right").digest == case.digest


def test_light_bends_the_middle_of_the_scale_and_leaves_ends_and_mask():
    values = np.array([[0, 64, 128, 255]], np.uint8)
    case = Case("a", values[..., None].repeat(3, axis=2), values > 100)
    # 255 (64 / 255)^(1 / 1.4) = 95.0, 255 (128 / 255)^(1 / 1.4) = 155.9; and with 1.4 as the exponent 36.8 and 97.1
    assert view_of(case, "brighter").image[0, :, 1].tolist() == [0, 95, 156, 255]
    assert view_of(case, "darker").image[0, :, 1].tolist() == [0, 37, 97, 255]
    assert all((view_of(case, view).mask == case.mask).all() for view in LIGHTS)


def test_recipe_best_keeps_its_four_views_whatever_else_there_is():
    assert get_recipe("best").views == ("as-is", "mirrored", "upside-down", "turned")


def test_the_loss_at_a_larger_size_trains_and_is_another_run(setting, tmp_path):
    fine = RECIPE.but(loss_size=128)
    assert fine.as_dict()["loss_size"] == 128
    assert "loss_size" not in RECIPE.as_dict(), "runs of before it keep their identity"
    _, result = train(setting, tmp_path / "fine", fine)
    _, plain = train(setting, tmp_path / "plain")
    assert result.history["loss"][1] != plain.history["loss"][1]
    assert result.history["loss"].iloc[-1] < result.history["loss"][1]
    with pytest.raises(ConfigError, match="loss_size is 128, asked for None"):
        train(setting, tmp_path / "fine")


def test_the_loss_at_the_decoders_own_size_is_the_loss_without_one(setting, tmp_path):
    _, plain = train(setting, tmp_path / "plain")
    _, same = train(setting, tmp_path / "same", RECIPE.but(loss_size=64))  # the tiny decoder's own
    assert list(same.history["loss"][1:]) == list(plain.history["loss"][1:])


def test_a_run_that_begins_with_other_weights_is_another_run(setting, tmp_path):
    train(setting, tmp_path / "run", start="a" * 64)
    with pytest.raises(ConfigError, match=r"start is a{12}\.\.\., asked for None"):
        train(setting, tmp_path / "run")


def test_a_prompt_encoder_trains_too_resumes_and_is_kept(setting, tmp_path):
    both = RECIPE.but(trainable=("mask_decoder", "prompt_encoder"), epochs=2)
    before = setting[0].state_dict()
    whole, _ = train(setting, tmp_path / "whole", both)
    after = whole.state_dict()
    changed = {key for key in after if not torch.equal(after[key], before[key])}
    assert {key.split(".")[0] for key in changed} == {"mask_decoder", "prompt_encoder"}
    assert not [key for key in changed if "shared" in key], "the positional code is fixed"
    again, _ = train(setting, tmp_path / "whole", both)
    assert_same(part_state(again, both.trainable), part_state(whole, both.trainable))
