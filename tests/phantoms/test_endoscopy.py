"""Endoscopy phantoms look like the recordings that they stand in for."""

import numpy as np
import pytest
from scipy import ndimage

from medsam_helpers.phantoms.endoscopy import draw_endoscopy


@pytest.fixture(scope="module")
def drawn():
    return [draw_endoscopy(np.random.default_rng([7, index])) for index in range(30)]


def test_corners_are_black_and_the_mask_lies_in_the_field_of_view(drawn):
    """What the recorder blacks out is exactly black, what the lens sees never over a stretch of pixels."""
    for image, mask in drawn:
        assert not image[[0, 0, -1, -1], [0, -1, 0, -1]].any()
        dark = ndimage.binary_opening(image.max(axis=2) == 0, iterations=4)
        assert (mask & dark).sum() <= 0.002 * mask.sum()


def test_tissue_is_reddish_and_has_highlights(drawn):
    red, green, blue = np.mean([image[image.max(axis=2) > 24].mean(axis=0) for image, _ in drawn], axis=0)
    assert red > 1.4 * green > 1.4 * blue
    assert np.mean([(image.min(axis=2) > 230).mean() for image, _ in drawn]) > 0.001


def test_sometimes_there_are_two_lesions(drawn):
    labels = [ndimage.label(mask)[0] for _, mask in drawn]
    counts = [int((np.bincount(each.ravel())[1:] > 0.002 * each.size).sum()) for each in labels]
    assert counts.count(1) > 20
    assert max(counts) >= 2
