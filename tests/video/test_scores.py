"""Scores of a sequence, by hand."""

import numpy as np
import pytest
from helpers import mask_of

from medsam_helpers.errors import ShapeError
from medsam_helpers.video.scores import baselines, outline_f, score_sequence

HW = (100, 100)
SQUARE, EMPTY = mask_of(HW, (20, 40, 20, 40)), np.zeros(HW, bool)


def test_the_scores_of_five_frames_by_hand():
    half = mask_of(HW, (20, 30, 20, 40))  # Dice 2/3, IoU 1/2
    truths = [SQUARE, SQUARE, SQUARE, EMPTY, EMPTY]
    found = score_sequence([SQUARE, half, EMPTY, EMPTY, SQUARE], truths)
    assert found["dice"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert found["J"] == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert found["above_0.8"] == pytest.approx(1 / 3)
    assert (found["rightly_empty"], found["lost_at"]) == (0.5, 2)
    always = score_sequence([SQUARE], [SQUARE])
    assert np.isnan([always["rightly_empty"], always["lost_at"]]).all()
    with pytest.raises(ShapeError, match="1 masks for 2 frames"):
        score_sequence([SQUARE], [SQUARE, SQUARE])


def test_the_f_of_outlines_by_hand():
    assert outline_f(SQUARE, SQUARE) == outline_f(EMPTY, EMPTY) == 1
    assert outline_f(SQUARE, EMPTY) == outline_f(SQUARE, mask_of(HW, (60, 80, 60, 80))) == 0
    # The tolerance is 1.13 pixels: an outline moved by one lies within it, by two pixels only where both share a line.
    assert outline_f(SQUARE, mask_of(HW, (21, 41, 20, 40))) == 1
    # Moved two to the right, of 76 pixels 36 and the two at each end of the sides that lie on the same rows are near.
    assert outline_f(SQUARE, mask_of(HW, (20, 40, 22, 42))) == pytest.approx(40 / 76, abs=0.03)


def test_baselines_copy_the_first_mask_and_fill_an_ellipse_in_its_box():
    found = baselines(SQUARE)
    np.testing.assert_array_equal(found["first mask copied"], SQUARE)
    assert found["ellipse stays"].sum() == pytest.approx(np.pi * 100, rel=0.02)
