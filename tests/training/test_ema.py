"""The moving average of weights: by hand, applied and taken off again, frozen weights left alone."""

import pytest
from torch import nn

from medsam_helpers.training.ema import ExponentialMovingAverage


def fill(model, value):
    for weight in model.parameters():
        nn.init.constant_(weight, value)


@pytest.fixture
def model():
    """All weights 0, the first layer frozen."""
    layers = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    layers[0].requires_grad_(False)
    fill(layers, 0.0)
    return layers


@pytest.mark.parametrize(("decay", "expected"), [(0.5, 3.0), (0.0, 2.0)])  # 0 -> 4 -> 4 -> 3; the last step
def test_three_steps_by_hand(model, decay, expected):
    average = ExponentialMovingAverage(model, decay)
    for value in (8.0, 4.0, 2.0):
        fill(model, value)
        average.update()
    assert average.weights.keys() == {"1.weight", "1.bias"}, "frozen weights have no average"
    assert {float(w.unique()) for w in average.weights.values()} == {expected}


def test_applied_inside_the_block_and_taken_off_after_it_after_an_error_too(model):
    average = ExponentialMovingAverage(model, decay=0.5)
    fill(model, 8.0)
    average.update()
    with average.applied():
        assert (model[1].bias.item(), model[0].bias[0].item()) == (4.0, 8.0)
    with pytest.raises(ZeroDivisionError), average.applied():
        1 / 0  # noqa: B018
    assert model[1].bias.item() == 8.0
