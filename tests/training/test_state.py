"""The file that a run goes on from: refused where it is another run's, named where it is damaged."""

import pytest
import torch
from torch import nn

from medsam_helpers.errors import CheckpointError, ConfigError
from medsam_helpers.training.state import STATE_FILE, TrainingState

IDENTITY = {"recipe": {"lr": 0.001, "views": ("as-is",)}, "seed": 0, "train": "a" * 64}


@pytest.fixture
def saved(tmp_path):
    """A state of two epochs, the first the better one, and the network and optimiser it is of."""
    network = nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    state = TrainingState.open(tmp_path / STATE_FILE, IDENTITY)
    for score in (0.8, 0.7):
        network(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        weights = {name: weight.clone() for name, weight in network.state_dict().items()}
        state.record({"dev_dice": score}, weights, weights)
    state.save(optimizer, torch.amp.GradScaler("cpu", enabled=False))
    return tmp_path / STATE_FILE, network, optimizer


def test_it_comes_back_as_it_was(saved):
    path, network, optimizer = saved
    state = TrainingState.open(path, IDENTITY)
    assert (state.epoch, state.best_epoch) == (1, 0)
    assert not torch.equal(state.best["weight"], state.current["weight"])
    other = nn.Linear(2, 1)
    again = torch.optim.AdamW(other.parameters(), lr=0.1)
    state.restore(other, again, torch.amp.GradScaler("cpu", enabled=False))
    assert torch.equal(other.weight, network.weight)
    for one, two in zip(optimizer.state.values(), again.state.values(), strict=True):
        assert all(torch.equal(one[name], two[name]) for name in ("step", "exp_avg", "exp_avg_sq"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"recipe": {"lr": 0.002, "views": ["as-is"]}}, r"\(lr is 0.001, asked for 0.002\)"),
        ({"recipe": {"views": ["as-is"]}}, "lr is 0.001, asked for the default"),
        ({"start": "b" * 64}, r"start is the default, asked for b{12}\.\.\."),
    ],
)
def test_another_runs_is_refused_and_says_what_differs(saved, change, told):
    with pytest.raises(ConfigError, match=f"holds a run with other settings.*{told}"):
        TrainingState.open(saved[0], IDENTITY | change)


def test_a_damaged_one_is_named(saved):
    saved[0].write_bytes(saved[0].read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=r"damaged training state .* delete it to start anew"):
        TrainingState.open(saved[0], IDENTITY)
