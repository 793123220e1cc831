"""Augmentation: image and target move together, and the generator decides."""

import numpy as np
import torch
import torch.nn.functional as F

from medsam_helpers.specialists.augmentation import augmented


def test_image_and_target_move_together():
    pixels, target = torch.randn(3, 64, 64), torch.zeros(64, 64, dtype=torch.bool)
    target[24:40, 20:44] = True
    pixels[:, target] += 8  # bright, so that the picture shows where the lesion went
    kept, moved = pixels.clone(), []
    for seed in range(12):
        changed, where = augmented(pixels, target, np.random.default_rng(seed))
        assert (type(changed), changed.shape) == (torch.Tensor, pixels.shape)
        assert (changed.dtype, where.dtype) == (torch.float32, torch.bool)
        gray = F.avg_pool2d(changed.mean(0)[None, None], 3, 1, 1)[0, 0]
        assert gray[where].mean() > gray[~where].mean() + 3
        again, _ = augmented(pixels, target, np.random.default_rng(seed))
        assert torch.equal(changed, again), "the generator decides"
        moved.append(not torch.equal(where, target))
    assert any(moved)
    assert torch.equal(pixels, kept), "the original is left alone"


def test_a_lesion_that_would_leave_the_picture_stays():
    pixels, target = torch.randn(3, 64, 64), torch.zeros(64, 64, dtype=torch.bool)
    target[0, 0] = True  # any turn takes the corner out
    for seed in range(8):
        assert augmented(pixels, target, np.random.default_rng(seed))[1].any()
