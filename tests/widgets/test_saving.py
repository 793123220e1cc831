"""The Python that is written out for a session gives the same mask; the rest of saving is tested with the demo."""

import numpy as np
import pytest
from reference_image import BOX, reference_image

from medsam_helpers.sam.segmenter import Segmenter
from medsam_helpers.widgets import BoxPrompt
from medsam_helpers.widgets.saving import python_call

IMAGE_CODE = "from reference_image import reference_image\nimage = reference_image()"


@pytest.mark.parametrize("boxes", [[BOX.tolist(), [10, 10, 60, 90]], [], None], ids=["boxes", "points", "proposal"])
def test_the_call_that_is_written_out_gives_the_same_mask(with_head, monkeypatch, boxes):
    widget = BoxPrompt(reference_image(), with_head)
    if boxes is None:
        widget.propose()
        widget.points = [[20, 20, 0], [240, 175, 1]]
    else:
        widget.prompt(boxes, [[240, 175, 1], [20, 20, 0]])
    monkeypatch.setattr(Segmenter, "load", lambda *_, **__: with_head)  # a random model has no name to load it by
    names = {}
    exec(python_call(widget, IMAGE_CODE), names)
    assert np.array_equal(names["mask"], widget.mask)


def test_beside_one_that_proposes_another_model_is_called_with_clicks_alone(segmenter, with_head, monkeypatch):
    widget = BoxPrompt(reference_image(), {"plain": segmenter, "with head": with_head})
    widget.propose()
    assert list(widget.answers) == ["with head"]
    widget.points = [[240, 175, 1]]
    monkeypatch.setattr(Segmenter, "load", lambda *_, **__: segmenter)
    names = {}
    exec(python_call(widget, IMAGE_CODE), names)
    assert np.array_equal(names["mask"], widget.mask)
