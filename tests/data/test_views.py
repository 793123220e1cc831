"""Views of a case: every pixel by hand, there and back again, and in other light."""

import numpy as np
import pytest

from medsam_helpers.data.case import Case
from medsam_helpers.data.views import view_of

GRAY = np.arange(6, dtype=np.uint8).reshape(2, 3)  # [[0, 1, 2], [3, 4, 5]]
CASE = Case("a", GRAY[..., None].repeat(3, axis=2), GRAY == 2)


@pytest.mark.parametrize(
    ("view", "back", "pixels"),
    [
        ("as-is", "as-is", [[0, 1, 2], [3, 4, 5]]),
        ("mirrored", "mirrored", [[2, 1, 0], [5, 4, 3]]),
        ("upside-down", "upside-down", [[3, 4, 5], [0, 1, 2]]),
        ("turned", "turned", [[5, 4, 3], [2, 1, 0]]),
        ("quarter-left", "quarter-right", [[2, 5], [1, 4], [0, 3]]),
        ("quarter-right", "quarter-left", [[3, 0], [4, 1], [5, 2]]),
    ],
)
def test_a_view_moves_image_and_mask_as_by_hand_and_back(view, back, pixels):
    seen = view_of(CASE, view)
    assert seen.image[..., 0].tolist() == pixels
    assert (seen.mask == (seen.image[..., 0] == 2)).all()
    assert view_of(seen, back).digest == CASE.digest


def test_light_bends_the_middle_of_the_scale_and_leaves_ends_and_mask():
    values = np.array([[0, 64, 128, 255]], np.uint8)
    case = Case("a", values[..., None].repeat(3, axis=2), values > 100)
    # 255 (64 / 255)^(1 / 1.4) = 95.0, 255 (128 / 255)^(1 / 1.4) = 155.9; and with 1.4 as the exponent 36.8 and 97.1
    for view, expected in {"brighter": [0, 95, 156, 255], "darker": [0, 37, 97, 255]}.items():
        seen = view_of(case, view)
        assert seen.image[0, :, 1].tolist() == expected
        assert (seen.mask == case.mask).all()


def test_a_view_takes_ignored_pixels_and_labels_along():
    mask = np.eye(2, 3, dtype=bool)
    case = Case("a", np.zeros((2, 3, 3), np.uint8), mask, ~mask, mask.astype(int))
    turned = view_of(case, "turned")
    assert np.array_equal(turned.ignored, np.rot90(~mask, 2))
    assert np.array_equal(turned.labels, np.rot90(mask.astype(int), 2))
