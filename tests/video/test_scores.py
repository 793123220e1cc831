"""Scores of a sequence, by hand."""

import numpy as np
import pytest
from helpers import mask_of

from medsam_helpers.errors import ShapeError
from medsam_helpers.video.scores import outline_f, score_sequence

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
    assert np.isnan([score_sequence([SQUARE], [SQUARE])[name] for name in ("rightly_empty", "lost_at")]).all()
    with pytest.raises(ShapeError, match="1 masks for 2 frames"):
        score_sequence([SQUARE], [SQUARE, SQUARE])


def test_the_f_of_outlines_by_hand():
    assert outline_f(SQUARE, SQUARE) == outline_f(EMPTY, EMPTY) == 1
    assert outline_f(SQUARE, EMPTY) == outline_f(SQUARE, mask_of(HW, (60, 80, 60, 80))) == 0
    # The tolerance is 1.13 pixels: an outline moved by one lies within it; moved by two, of 76 pixels about 40 do.
    assert outline_f(SQUARE, mask_of(HW, (21, 41, 20, 40))) == 1
    assert outline_f(SQUARE, mask_of(HW, (20, 40, 22, 42))) == pytest.approx(40 / 76, abs=0.03)
