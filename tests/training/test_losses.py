"""Losses against values worked out by hand, against MONAI and torch, and against what must not pass."""

import math

import pytest
import torch

from medsam_helpers.errors import DataError, ShapeError
from medsam_helpers.training.losses import LOSSES, bce_loss, dice_ce_loss, dice_loss, focal_loss, get_loss, sam_loss

# Probabilities 1/2, 3/4, 1/4, 1/5 over the pixels of a 2 x 2 image; the upper row is the lesion.
LOGITS = torch.tensor([[[[0.0, math.log(3)], [-math.log(3), -math.log(4)]]]])
TARGET = torch.tensor([[[[1.0, 1], [0, 0]]]])
P_T = [1 / 2, 3 / 4, 3 / 4, 4 / 5]
each_loss = pytest.mark.parametrize("name", LOSSES)


@pytest.fixture
def random_pair():
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(3, 1, 16, 24, generator=generator) * 4
    target = (torch.rand(3, 1, 16, 24, generator=generator) > 0.7).float()
    return logits, target


def test_bce_and_focal_by_hand():
    assert bce_loss(LOGITS, TARGET).item() == pytest.approx(-sum(map(math.log, P_T)) / 4, abs=1e-6)
    terms = [-((1 - p) ** 2) * math.log(p) for p in P_T]
    assert focal_loss(LOGITS, TARGET, alpha=None).item() == pytest.approx(sum(terms) / 4, abs=1e-6)
    weighted = 0.25 * sum(terms[:2]) + 0.75 * sum(terms[2:])
    assert focal_loss(LOGITS, TARGET).item() == pytest.approx(weighted / 4, abs=1e-6)
    assert sam_loss(LOGITS, TARGET).item() == pytest.approx(5 * weighted + dice_loss(LOGITS, TARGET).item(), abs=1e-6)


def test_dice_by_hand():
    overlap, squares = 1 / 2 + 3 / 4, 1 / 4 + 9 / 16 + 1 / 16 + 1 / 25
    for squared, size in ((False, 1.7), (True, squares)):
        found = dice_loss(LOGITS, TARGET, squared=squared, smooth=0).item()
        assert found == pytest.approx(1 - 2 * overlap / (size + 2), abs=1e-6)
    # One image right, one wrong: 0 and 1 make 0.5. Pooled over the batch it would be 1 - 2 * 4 / (5 + 5) = 0.2.
    target = torch.tensor([[[[1.0, 1], [1, 1]]], [[[1, 0], [0, 0]]]])
    logits = torch.tensor([[[[40.0, 40], [40, 40]]], [[[-40, 40], [-40, -40]]]])
    assert dice_loss(logits, target).item() == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("squared", [False, True])
def test_dice_and_dice_ce_and_focal_equal_monai(random_pair, squared):
    # Here, since importing MONAI takes seconds, and every process that collects tests would wait for it.
    from monai.losses import DiceCELoss, DiceLoss, FocalLoss

    expected = DiceLoss(sigmoid=True, squared_pred=squared)(*random_pair)
    torch.testing.assert_close(dice_loss(*random_pair, squared=squared), expected)
    expected = DiceCELoss(sigmoid=True, squared_pred=squared)(*random_pair)
    torch.testing.assert_close(dice_ce_loss(*random_pair, squared=squared), expected)
    # MONAI #6923: a softmax over the one channel made the cross-entropy 0 for whatever prediction.
    assert dice_ce_loss(*random_pair) - dice_loss(*random_pair) > 0.1
    how = {"alpha": 0.9, "gamma": 0.5}
    torch.testing.assert_close(focal_loss(*random_pair, **how), FocalLoss(use_softmax=False, **how)(*random_pair))


@each_loss
def test_losses_are_ordered_right_half_wrong_and_gradients_stay_finite_far_out(name):
    signs = 2 * TARGET - 1
    right, ignorant, wrong = (get_loss(name)(factor * signs, TARGET).item() for factor in (20, 0, -20))
    assert pytest.approx(0, abs=1e-4) == right < ignorant < wrong
    for size in (-100, 100):
        logits = (size * signs).requires_grad_()
        loss = get_loss(name)(logits, TARGET) + focal_loss(logits, TARGET, gamma=0.5)
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(logits.grad).all()


@each_loss
def test_half_precision_logits_do_not_overflow(name):
    # 400 x 400 pixels of lesion sum to 160,000, beyond the 65,504 that float16 can hold.
    target = torch.ones(1, 1, 400, 400)
    loss = get_loss(name)(3 * target.half(), target)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, get_loss(name)(3 * target, target))


@pytest.mark.parametrize("squared", [False, True])
def test_dice_of_an_empty_mask_is_0_where_nothing_is_found_and_1_otherwise(squared):
    empty = torch.zeros(1, 1, 4, 4)
    logits = torch.full_like(empty, -100).requires_grad_()
    loss = dice_loss(logits, empty, squared=squared)
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(logits.grad).all()
    assert dice_loss(-logits, empty, squared=squared).item() == pytest.approx(1, abs=1e-5)


@each_loss
def test_target_may_be_of_any_dtype_as_long_as_it_is_binary_and_of_the_logits_shape(name):
    torch.testing.assert_close(get_loss(name)(LOGITS, TARGET.bool()), get_loss(name)(LOGITS, TARGET))
    for target in ((255 * TARGET).to(torch.uint8), TARGET * math.nan):
        with pytest.raises(DataError, match="0 and 1 only"):
            get_loss(name)(LOGITS, target)
    for logits, target in [(LOGITS, TARGET[:, 0]), (LOGITS[0, 0], TARGET[0, 0])]:  # the first would be broadcast
        with pytest.raises(ShapeError, match=r"\(B, 1, H, W\)"):
            get_loss(name)(logits, target)
