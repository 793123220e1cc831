"""Ultrasound phantoms: one dark lesion in one piece, speckle as a point-spread function leaves it."""

import numpy as np
import pytest
from scipy import ndimage

from medsam_helpers.phantoms.ultrasound import draw_ultrasound


@pytest.fixture(scope="module")
def drawn():
    return [draw_ultrasound(np.random.default_rng([7, index])) for index in range(16)]


def test_grey_and_one_lesion_darker_than_its_surroundings(drawn):
    darker = []
    for image, mask in drawn:
        assert ndimage.label(mask)[1] == 1
        assert not np.ptp(image, axis=2).any()
        ring = ndimage.binary_dilation(mask, iterations=15) & ~mask
        darker.append(image[mask].mean() < image[ring].mean())
    assert np.mean(darker) >= 0.9


def test_speckle_is_correlated_over_a_few_pixels_and_wider_than_high(drawn):
    along_depth, across = [], []
    for image, _ in drawn[:6]:
        grey = image[..., 0].astype(float)
        speckle = grey - ndimage.gaussian_filter(grey, 5)
        along_depth.append((speckle[3:] * speckle[:-3]).mean() / speckle.var())
        across.append((speckle[:, 3:] * speckle[:, :-3]).mean() / speckle.var())
    assert np.mean(across) > np.mean(along_depth) + 0.1
    assert np.mean(across) > 0.2
