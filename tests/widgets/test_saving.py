"""What is saved of a session: mask and prompts read back, and the written call gives the same mask."""

import json

import numpy as np
import pytest
from PIL import Image
from reference_image import BOX, reference_image

from medsam_helpers.errors import PromptError
from medsam_helpers.sam.segmenter import Segmenter
from medsam_helpers.widgets import BoxPrompt
from medsam_helpers.widgets.saving import python_call, save_mask, save_prompts


def test_saved_mask_and_prompts_read_back(widget, tmp_path):
    with pytest.raises(PromptError, match="no mask"):
        save_mask(widget, tmp_path / "no.png")
    assert not list(tmp_path.iterdir())
    widget.prompt(boxes=[[20, 10, 60, 30]], points=[[3, 4, 1]])
    save_mask(widget, tmp_path / "deep" / "mask.png")
    assert np.array_equal(Image.open(tmp_path / "deep" / "mask.png"), np.where(widget.mask, 255, 0))
    save_prompts(widget, tmp_path / "prompts.json")
    assert json.loads((tmp_path / "prompts.json").read_text()) == {
        **{"image": "blank", "width": 100, "height": 60, "boxes": [[20, 10, 60, 30]], "points": [[3, 4, 1]]},
        "answers": {"fill": {"scores": [pytest.approx(801 / 6000, abs=1e-4)], "dice": widget.dice}},
    }


@pytest.mark.parametrize("boxes", [[BOX.tolist(), [10, 10, 60, 90]], []], ids=["boxes and points", "points"])
def test_the_call_that_is_written_out_gives_the_same_mask(segmenter, monkeypatch, boxes):
    widget = BoxPrompt(reference_image(), segmenter)
    widget.prompt(boxes, [[240, 175, 1], [20, 20, 0]])
    monkeypatch.setattr(Segmenter, "load", lambda *_, **__: segmenter)  # a random model has no name to load it by
    names = {}
    exec(python_call(widget, "from reference_image import reference_image\nimage = reference_image()"), names)
    assert np.array_equal(names["mask"], widget.mask)


def test_a_model_of_ones_own_gets_a_call_too(widget, fill, image):
    with pytest.raises(PromptError, match="no prompt"):
        python_call(widget, "")
    widget.prompt(boxes=[[20, 10, 60, 30]])
    names = {"fill": fill, "blank": image}
    exec(python_call(widget, "image = blank"), names)
    assert np.array_equal(names["masks"][0], widget.answer.masks)
