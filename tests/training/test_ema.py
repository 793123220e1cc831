"""The moving average of weights: by hand, applied and taken off again, frozen weights left alone."""

import pytest
from torch import nn

from medsam_helpers.training.ema import ExponentialMovingAverage


def fill(model, value):
    for weight in model.parameters():
        nn.init.constant_(weight, value)


@pytest.mark.parametrize(("decay", "expected"), [(0.5, 3.0), (0.0, 2.0)])  # 0 -> 4 -> 4 -> 3; the last step
def test_three_steps_by_hand_applied_and_taken_off_again_after_an_error_too(decay, expected):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    model[0].requires_grad_(False)
    fill(model, 0.0)
    average = ExponentialMovingAverage(model, decay)
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
