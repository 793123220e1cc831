"""Views of a case: turned there and back, by hand, and in other light."""

import numpy as np
import pytest
from helpers import draw_discs

from medsam_helpers.data.case import Case
from medsam_helpers.data.views import LIGHTS, TURNS, view_of


@pytest.mark.parametrize("view", [view for view in TURNS if "quarter" not in view])
def test_a_view_twice_is_the_case_itself(view):
    case = draw_discs(1)[0]
    twice = view_of(view_of(case, view), view)
    assert twice.digest == case.digest
    assert (view_of(case, view).digest == case.digest) == (view == "as-is")


def test_quarter_turns_move_every_pixel_as_by_hand():
    image = np.arange(6, dtype=np.uint8).reshape(2, 3)[..., None].repeat(3, axis=2)
    case = Case("a", image, image[..., 0] == 2)  # the pixel at the top right
    left, right = view_of(case, "quarter-left"), view_of(case, "quarter-right")
    assert left.image[..., 0].tolist() == [[2, 5], [1, 4], [0, 3]]
    assert right.image[..., 0].tolist() == [[3, 0], [4, 1], [5, 2]]
    assert np.argwhere(left.mask).tolist() == [[0, 0]]
    assert np.argwhere(right.mask).tolist() == [[2, 1]]
    assert view_of(left, "quarter-right").digest == case.digest


def test_light_bends_the_middle_of_the_scale_and_leaves_ends_and_mask():
    values = np.array([[0, 64, 128, 255]], np.uint8)
    case = Case("a", values[..., None].repeat(3, axis=2), values > 100)
    # 255 (64 / 255)^(1 / 1.4) = 95.0, 255 (128 / 255)^(1 / 1.4) = 155.9; and with 1.4 as the exponent 36.8 and 97.1
    assert view_of(case, "brighter").image[0, :, 1].tolist() == [0, 95, 156, 255]
    assert view_of(case, "darker").image[0, :, 1].tolist() == [0, 37, 97, 255]
    assert all((view_of(case, view).mask == case.mask).all() for view in LIGHTS)
