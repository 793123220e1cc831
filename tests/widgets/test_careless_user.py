"""The program that draws like a careless person."""

import numpy as np
from helpers import mask_of

from medsam_helpers.widgets.careless_user import empty_box


def test_an_empty_box_lies_on_tissue_without_lesion():
    image, truth = np.full((40, 60, 3), 120, np.uint8), mask_of((40, 60), (10, 25, 20, 45))
    image[:, :10] = 0
    for seed in range(20):
        x0, y0, x1, y1 = empty_box(image, truth, np.random.default_rng(seed)).astype(int)
        assert (x1 - x0, y1 - y0) == (15, 10)
        assert not truth[y0:y1, x0:x1].any()
        assert (image[y0:y1, x0:x1] > 30).mean() > 0.9
    assert empty_box(image * 0, truth, np.random.default_rng(0)) is None
