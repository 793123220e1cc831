"""Drawn videos: exact masks, the same each time; the lesion is hidden in part, leaves, and comes back."""

import numpy as np
import pytest
from helpers import draw_discs
from scipy import ndimage

from medsam_helpers.errors import ConfigError
from medsam_helpers.phantoms.video import filmed, phantom_video


def test_the_lesion_moves_is_hidden_in_part_leaves_and_comes_back():
    video = phantom_video(1)
    masks = [case.mask for case in video]
    seen = np.array([mask.any() for mask in masks])
    assert (len(video), video.names[3], masks[0].shape) == (60, "video-1-0003", (256, 320))
    assert seen[:36].all()
    assert not seen[40:44].any()
    assert seen[48:].all()
    regions = [ndimage.label(mask)[1] for mask in masks]
    assert (regions[0], max(regions[22:30])) == (1, 2)  # the instrument lies across it
    np.testing.assert_array_equal(phantom_video(1)[30].image, video[30].image)
    assert not np.array_equal(phantom_video(2)[30].mask, masks[30])


def test_any_image_is_filmed_and_its_lesion_goes_along():
    case = draw_discs(1)[0]
    frame = filmed(case, count=24)[0]
    for part, whole in ((frame.mask, case.mask), (~frame.mask, ~case.mask)):  # but for the lamp's own distance
        np.testing.assert_allclose(frame.image[part].mean(), case.image[whole].mean(), rtol=0.15)
    with pytest.raises(ConfigError, match="take 2 or more"):
        filmed(case, count=1)
