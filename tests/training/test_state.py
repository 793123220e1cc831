"""The file that a run goes on from: refused where it is another run's, named where damaged; the average by hand."""

import pytest
import torch
from torch import nn

from medsam_helpers.errors import CheckpointError, ConfigError
from medsam_helpers.files import check_output_dir
from medsam_helpers.training.state import STATE_FILE, ExponentialMovingAverage, TrainingState

IDENTITY = {"recipe": {"lr": 0.001, "views": ("as-is",)}, "seed": 0, "train": "a" * 64}


@pytest.fixture
def saved(tmp_path):
    """The file of a state of three epochs, the first two the best ones."""
    weights = [torch.zeros(2, requires_grad=True)]
    state = TrainingState.open(tmp_path / STATE_FILE, IDENTITY)
    for number, score in enumerate((0.8, 0.8, 0.7)):
        state.record({"dev_dice": score}, *[{"weight": torch.full((2,), float(number))}] * 2)
    state.save(torch.optim.AdamW(weights), torch.amp.GradScaler("cpu", enabled=False))
    return tmp_path / STATE_FILE


def test_of_two_equal_epochs_the_earlier_is_the_best(saved):
    state = TrainingState.open(saved, IDENTITY)
    assert (state.epoch, state.best_epoch) == (2, 0)
    assert (state.best["weight"].tolist(), state.current["weight"].tolist()) == ([0, 0], [2, 2])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"recipe": {"lr": 0.002, "views": ["as-is"]}}, r"\(lr is 0.001, asked for 0.002\)"),
        ({"recipe": {"views": ["as-is"]}}, "lr is 0.001, asked for the default"),
        ({"train": "mended"}, r"\(train holds other images or masks than it did\)"),
        ({"start": "b" * 64}, r"start is the default, asked for b{40}\)"),
    ],
)
def test_another_runs_is_refused_and_says_why(saved, change, told):
    with pytest.raises(ConfigError, match=f"holds a run with other settings.*{told}"):
        TrainingState.open(saved, IDENTITY | change)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda data: data[:-10], "incomplete metadata"),
        (lambda data: data[:-3] + bytes([data[-3] ^ 1]) + data[-2:], "its numbers changed since it was written"),
        (lambda data: data.replace(b"history", b"hastory"), "unexpected keyword argument 'hastory'"),
    ],
)
def test_a_damaged_state_is_named_and_what_is_advised_works(saved, damage, told):
    saved.write_bytes(damage(saved.read_bytes()))
    with pytest.raises(CheckpointError, match=rf"damaged training state .*{told}.*; name a new .* or empty this one"):
        TrainingState.open(saved, IDENTITY)
    (saved.parent / "decoder.safetensors").touch()
    for file in list(saved.parent.iterdir()):
        file.unlink()
    check_output_dir(saved.parent, mark=STATE_FILE)


def fill(model, value):
    for weight in model.parameters():
        nn.init.constant_(weight, value)


@pytest.mark.parametrize(("decay", "expected"), [(0.5, 3.0), (0.0, 2.0)])  # 0 -> 4 -> 4 -> 3; the last step
def test_three_steps_by_hand_applied_and_taken_off_again_after_an_error_too(decay, expected):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    model[0].requires_grad_(False)
    fill(model, 0.0)
    average = ExponentialMovingAverage(model, decay, {})
    for value in (8.0, 4.0, 2.0):
        fill(model, value)
        average.update()
    assert average.weights.keys() == {"1.weight", "1.bias"}, "frozen weights have no average"
    assert {float(w.unique()) for w in average.weights.values()} == {expected}
    with average.applied():
        assert (model[1].bias.item(), model[0].bias[0].item()) == (expected, 2.0)
    with pytest.raises(ZeroDivisionError), average.applied():
        1 / 0  # noqa: B018
    assert model[1].bias.item() == 2.0
