"""A model of one's own, a small image with its truth, and a tiny random SAM, for all tests of the widget."""

import numpy as np
import pytest
from helpers import mask_of

from medsam_helpers.sam.loading import load_sam
from medsam_helpers.sam.model import add_automatic_head
from medsam_helpers.sam.segmenter import Segmenter
from medsam_helpers.widgets import BoxPrompt


@pytest.fixture
def fill():
    """A model that fills every box, scored by its share of the image; clicks set single pixels."""

    def fill(image, boxes, points):
        masks = np.zeros((max(1, len(boxes)), *image.shape[:2]), bool)
        for mask, (x0, y0, x1, y1) in zip(masks, boxes.astype(int), strict=False):
            mask[y0:y1, x0:x1] = True
        for x, y, label in points.astype(int):
            masks[:, y, x] = bool(label)
        return masks, masks.mean(axis=(1, 2))

    return fill


@pytest.fixture
def image():
    return np.zeros((60, 100, 3), np.uint8)


@pytest.fixture
def truth(image):
    return mask_of(image.shape[:2], (10, 30, 20, 60))


@pytest.fixture
def widget(image, fill, truth):
    return BoxPrompt(image, fill, truth, "blank")


@pytest.fixture
def with_head(tiny_folder):
    """A segmenter that needs no prompt."""
    model = load_sam(tiny_folder)
    add_automatic_head(model)
    return Segmenter(model, "cpu", precision="fp32")
