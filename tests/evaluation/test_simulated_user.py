"""The program that clicks and draws like a person."""

import numpy as np
import pytest

from medsam_helpers.evaluation.simulated_user import correcting_click, empty_box


@pytest.fixture
def truth():
    mask = np.zeros((40, 60), bool)
    mask[10:25, 20:45] = True
    return mask


def test_a_miss_is_clicked_as_lesion_and_a_false_alarm_as_background(truth):
    missed = truth.copy()
    missed[10:25, 20:30] = False
    missed[0:5, 0:5] = True  # the smaller mistake comes later
    x, y, label = correcting_click(missed, truth)
    assert label == 1
    assert 22 <= x < 28
    assert 13 <= y < 22
    too_much = truth.copy()
    too_much[30:39, 2:18] = True
    x, y, label = correcting_click(too_much, truth)
    assert (label, y) == (0, 34)
    assert correcting_click(truth, truth) is None


def test_an_empty_box_lies_on_tissue_without_lesion(truth):
    image = np.full((40, 60, 3), 120, np.uint8)
    image[:, :10] = 0
    for seed in range(20):
        x0, y0, x1, y1 = empty_box(image, truth, np.random.default_rng(seed)).astype(int)
        assert (x1 - x0, y1 - y0) == (15, 10)
        assert not truth[y0:y1, x0:x1].any()
        assert (image[y0:y1, x0:x1] > 30).mean() > 0.9
    assert empty_box(image * 0, truth, np.random.default_rng(0)) is None
