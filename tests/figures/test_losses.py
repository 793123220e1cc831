"""The wrong guess, the gradients and their picture."""

import numpy as np
import pytest
import torch

from medsam_helpers.errors import DataError
from medsam_helpers.figures.losses import FIVE_LOSSES, gradient_maps, logit_gradient, wrong_guess
from medsam_helpers.training.losses import bce_loss, dice_loss


def test_the_guess_is_the_lesion_moved_left_and_sure_of_itself(square):
    guess = wrong_guess(square.mask)
    assert (guess.shape, guess.dtype) == ((1, 1, 60, 100), torch.float32)
    assert (guess.max().item(), guess.min().item()) == pytest.approx((6, -6), abs=1e-3)
    columns = np.flatnonzero((guess[0, 0, 30] > 0).numpy())
    assert (columns[0], columns[-1]) == (28, 67)  # 40 to 79, moved by 0.3 of 40
    with pytest.raises(DataError, match="mask is empty"):
        wrong_guess(np.zeros((8, 8), bool))


def test_gradients_are_those_of_the_formulas():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 1, 6, 7, generator=generator)
    target = (torch.rand(1, 1, 6, 7, generator=generator) > 0.6).float()
    p = logits.sigmoid()
    overlap, mass = (p * target).sum(), (p + target).sum()
    torch.testing.assert_close(logit_gradient(bce_loss, logits, target), (p - target) / 42)
    expected = p * (1 - p) * (2 * overlap / mass**2 - 2 * target / mass)
    torch.testing.assert_close(logit_gradient(dice_loss, logits, target), expected, rtol=1e-4, atol=1e-7)
    assert logits.grad is None


def test_the_picture_has_a_panel_for_the_guess_and_one_a_loss(square):
    figure = gradient_maps(square.image, square.mask, wrong_guess(square.mask), note="a phantom")
    assert [ax.get_title() for ax in figure.axes][1:6] == list(FIVE_LOSSES)
    cross_entropy = figure.axes[1].images[0].get_array()
    assert cross_entropy[30, 30] == pytest.approx(-1, abs=0.01)  # a false alarm: less lesion
    assert cross_entropy[30, 78] == pytest.approx(1, abs=0.01)  # a miss: more lesion
    assert abs(cross_entropy[5, 5]) < 0.01
