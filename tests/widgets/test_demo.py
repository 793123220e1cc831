"""The panel: pickers of image and model, uploads, folders, checkpoints, buttons."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from medsam_helpers.errors import ConfigError
from medsam_helpers.phantoms.dataset import phantom_dataset, save_folder
from medsam_helpers.widgets import box_prompt_demo
from medsam_helpers.widgets.demo import NOTHING, UPLOADS


@pytest.fixture
def demo(cache, fill, tmp_path):
    def shade(image, boxes, points):
        """Dark pixels of the boxes."""
        return fill(image, boxes, points)[0] & (image.mean(axis=2) < 100)

    return box_prompt_demo({"fill": fill, "shade": shade}, save_to=tmp_path / "saved")


def upload(demo, name, content):
    """What the canvas sends, in parts as it does."""
    half = len(content) // 2
    for part, piece in enumerate((content[:half], content[half:])):
        message = {"do": "upload", "name": name, "part": part, "parts": 2}
        demo.canvas._handle_custom_msg(message, [memoryview(piece)])


def test_pickers_show_another_image(demo):
    demo.image.value = "endoscopy-val-0002"
    assert demo.canvas.name == "endoscopy-val-0002"
    demo.source.value = "phantom-ultrasound"
    assert (demo.image.value, demo.canvas.name) == ("ultrasound-val-0000", "ultrasound-val-0000")
    assert demo.canvas.truth.any()
    with pytest.raises(ConfigError, match="at least one data source"):
        box_prompt_demo(data=())


def test_models_change_under_the_same_box_and_stand_side_by_side(demo):
    demo.canvas.prompt(boxes=[[10, 10, 90, 90]])
    filled = demo.canvas.mask
    demo.beside.value = "shade"
    assert list(demo.canvas.answers) == ["fill", "shade"]
    demo.model.value = "shade"
    assert list(demo.canvas.answers) == ["shade"]
    assert demo.canvas.mask.sum() < filled.sum()
    demo.beside.value = NOTHING
    assert list(demo.canvas.answers) == ["shade"]


def test_an_upload_is_shown_and_kept_in_the_list(demo):
    for size in ((20, 10), (10, 20)):  # a new file of the same name replaces the old one
        content = io.BytesIO()
        Image.new("L", size).save(content, "PNG")
        upload(demo, "mine.png", content.getvalue())
        assert (demo.canvas.name, demo.source.value, demo.image.value) == ("mine.png", UPLOADS, "mine.png")
        assert (demo.canvas.image.shape, demo.canvas.truth) == ((*size[::-1], 3), None)
    demo.source.value = "phantom"
    demo.source.value = UPLOADS
    upload(demo, "notes.txt", b"not an image")
    assert demo.canvas.status.startswith("notes.txt: image bytes: not a readable image")
    assert (demo.canvas.state, demo.canvas.name) == ("error", "mine.png")


def test_a_folder_is_opened_by_name_and_what_is_not_there_is_told(demo, tmp_path):
    save_folder(phantom_dataset(n_train=2, n_dev=0, n_val=1, seed=5), tmp_path / "mine", show_progress=False)
    (tmp_path / "empty").mkdir()
    for folder, images, has_truth in (("mine", 1, True), ("mine/images", 3, False)):
        demo.folder.value = str(tmp_path / folder)
        assert demo.source.value == f"folder {folder.rpartition('/')[2]}"
        assert (len(demo.image.options), demo.canvas.truth is not None) == (images, has_truth)
        names = {}
        exec(demo.picture.code, names)
        assert np.array_equal(names["image"], demo.canvas.image)
    for bad in ("nowhere", "empty"):
        demo.folder.value = str(tmp_path / bad)
        assert (demo.canvas.state, bad in demo.canvas.status) == ("error", True)
        assert (demo.source.value, demo.model.value) == ("folder images", "fill")
    with pytest.raises(ConfigError, match="unknown"):
        box_prompt_demo(data=["phantoms"])


def test_buttons(demo, fill, tmp_path):
    def press(text, state="ready"):
        demo.buttons[text].click()
        assert demo.canvas.state == state

    press("Save mask", "error")
    press("Copy Python call", "error")
    demo.canvas.prompt(boxes=[[10, 10, 90, 90]], points=[[3, 4, 1]])
    press("Clear")
    assert demo.canvas.boxes == []
    press("Undo")
    assert demo.canvas.boxes == [[10, 10, 90, 90]]
    for button in ("Save mask", "Save mask", "Save prompts"):
        press(button)
    names = sorted(path.name for path in (tmp_path / "saved").iterdir())
    assert names == [f"endoscopy-val-0000_{end}" for end in ("mask.png", "mask_2.png", "prompts.json")]
    mask, _, prompts = (tmp_path / "saved" / name for name in names)
    assert np.array_equal(Image.open(mask), np.where(demo.canvas.mask, 255, 0))
    scores = [pytest.approx(demo.canvas.mask.mean(), abs=1e-4)]
    height, width = demo.canvas.mask.shape
    expected = {"image": "endoscopy-val-0000", "width": width, "height": height, "proposed": False}
    expected |= {"boxes": [[10, 10, 90, 90]], "points": [[3, 4, 1]]}
    answers = {"fill": {"scores": scores, "dice": demo.canvas.dice}}
    assert json.loads(prompts.read_text()) == expected | {"answers": answers}
    press("Copy Python call")
    assert demo.canvas._clipboard["text"] == demo.call.value
    variables = {"fill": fill}
    exec(demo.call.value, variables)
    assert np.array_equal(variables["masks"][0], demo.canvas.answer.masks), "a model of one's own gets a call too"


def test_a_proposal_is_offered_where_the_model_needs_no_prompt_and_undo_brings_it_back(cache, segmenter, with_head):
    demo = box_prompt_demo({"plain": segmenter, "with head": with_head})
    button, canvas = demo.buttons["Propose"], demo.canvas
    assert button.layout.display == "none"
    demo.model.value = "with head"
    assert button.layout.display == ""
    button.click()
    proposal = canvas.mask
    assert np.array_equal(proposal, with_head.predict(canvas.image).masks[0, 0])
    assert canvas.status.startswith("proposed, 0 boxes, 0 points")
    canvas.points = [[3, 4, 1]]
    assert (canvas.prompts()[2], np.array_equal(canvas.mask, proposal)) == (True, False), "corrected"
    canvas.boxes = [[10, 10, 90, 90]]
    assert not canvas.prompts()[2], "a box takes its place"
    canvas.undo()
    canvas.undo()
    assert np.array_equal(canvas.mask, proposal)
    canvas.clear()
    assert (canvas.prompts()[2], canvas.mask) == (False, None)
    canvas.undo()
    demo.model.value = "plain"
    canvas.boxes = [[10, 10, 90, 90]]
    canvas.propose()
    assert canvas.boxes == [[10, 10, 90, 90]], "nor can it"


def test_a_model_is_loaded_when_it_is_picked_and_a_decoder_may_come_from_a_folder(cache, tiny_folder, tuned):
    demo = box_prompt_demo({"zero-shot": tiny_folder, "released": str(tiny_folder)})
    demo.canvas.prompt(boxes=[[10, 10, 90, 90]])
    demo.beside.value = "released"
    zero_shot, released = demo.canvas.answers.values()
    assert np.array_equal(released.masks, zero_shot.masks)
    embeddings = demo.canvas.predictors["zero-shot"].cache
    before = embeddings.encoded
    demo.folder.value = str(tuned)
    assert (demo.model.value, demo.canvas.state) == ("tuned", "ready")
    assert embeddings.encoded == before, "base and decoder share the embedding"
    assert demo.canvas.answer.scores != zero_shot.scores
