"""Views of a case: the mask turns with the image, light changes the image alone."""

import numpy as np
import pytest
from helpers import draw_discs

from medsam_helpers.data.views import LIGHTS, TURNS, view_of, views_of

CASE = draw_discs(1)[0]


@pytest.mark.parametrize("view", TURNS)
def test_image_and_mask_turn_together(view):
    seen = view_of(CASE, view)
    assert np.array_equal(seen.image, TURNS[view](CASE.image))
    assert np.array_equal(seen.mask, TURNS[view](CASE.mask))
    assert seen.image.flags.c_contiguous


@pytest.mark.parametrize(("view", "sign"), [("brighter", 1), ("darker", -1)])
def test_light_keeps_black_white_and_the_mask(view, sign):
    levels = np.array([0, 100, 255], np.uint8)
    changed = LIGHTS[view](levels).astype(int) - levels
    assert np.sign(changed).tolist() == [0, sign, 0]
    assert view_of(CASE, view).mask is CASE.mask


def test_each_view_of_each_case_is_named():
    views = views_of(draw_discs(2), ["as-is", "mirrored"])
    assert [case.name for case in views] == ["disc-0", "disc-0 mirrored", "disc-1", "disc-1 mirrored"]
