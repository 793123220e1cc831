"""The box widget without a browser: traits, answers, history, errors, embeddings, pickers, files."""

import io
import json
import threading
import time

import numpy as np
import pytest
from PIL import Image
from reference_image import BOX, reference_image

from medsam_helpers.data.case import Case
from medsam_helpers.errors import ConfigError, DataError, PromptError, ShapeError
from medsam_helpers.phantoms.dataset import phantom_dataset, save_folder
from medsam_helpers.sam.embeddings import EmbeddingStore
from medsam_helpers.sam.segmenter import Segmenter
from medsam_helpers.sam.tuned import part_state, save_decoder
from medsam_helpers.widgets import BoxPrompt, EmbeddingCache, SegmenterPredictor, box_prompt_demo
from medsam_helpers.widgets.answers import MAX_SHOWN, image_layer, mask_layer, read_answer, shown_size
from medsam_helpers.widgets.demo import NOTHING, UPLOADS
from medsam_helpers.widgets.images import picture_source, read_upload
from medsam_helpers.widgets.predictors import owner, prompt_calls
from medsam_helpers.widgets.saving import python_call, save_mask, save_prompts


def fill(image, boxes, points):
    """A model of one's own: every box filled, scored by its share of the image."""
    masks = np.zeros((max(1, len(boxes)), *image.shape[:2]), bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.astype(int), strict=False):
        mask[y0:y1, x0:x1] = True
    for x, y, label in points.astype(int):
        masks[:, y, x] = bool(label)
    return masks, masks.mean(axis=(1, 2))


@pytest.fixture
def image():
    return np.zeros((60, 100, 3), np.uint8)


@pytest.fixture
def truth(image):
    mask = np.zeros(image.shape[:2], bool)
    mask[10:30, 20:60] = True
    return mask


@pytest.fixture
def widget(image, truth):
    return BoxPrompt(image, fill, truth, "blank")


@pytest.fixture
def segmenter(tiny_sam):
    return Segmenter(tiny_sam, "cpu", precision="fp32")


def browser_sends(widget, **state):
    """What arrives when the canvas was touched: all traits in one message, as ipywidgets hands it over."""
    widget.set_state({"_request": widget._request + 1, **state})


def decoded(layer):
    return np.asarray(Image.open(io.BytesIO(layer["bytes"])))


# Prompts and answers


def test_a_box_set_from_code_is_answered_when_the_assignment_returns(widget, truth):
    widget.boxes = [[20, 10, 60, 30]]
    assert np.array_equal(widget.mask, truth)
    assert widget.dice == 1.0
    assert widget.answer.scores == pytest.approx([800 / 6000])
    assert widget._answer["captions"] == ["score 0.13 · Dice 1.00"]
    layer = widget._answer["layers"][0]
    assert (layer["x"], layer["y"], decoded(layer).shape) == (20, 10, (20, 40))
    assert decoded(layer).all()


def test_several_boxes_give_a_mask_each_and_dice_of_their_union(widget):
    widget.boxes = np.array([[20, 10, 40, 30], [40.0, 10, 60, 30]], np.float32)
    assert widget.answer.masks.shape == (2, 60, 100)
    assert widget.dice == 1.0
    assert widget.boxes == [[20, 10, 40, 30], [40, 10, 60, 30]]


def test_points_reach_the_model_with_their_labels(widget):
    widget.prompt(boxes=[[0, 0, 2, 2]], points=[[50, 40, 1], [1, 1, 0]])
    assert widget.mask[40, 50]
    assert not widget.mask[1, 1]
    assert widget.mask[0, 0]


def test_a_message_from_the_browser_is_answered_under_its_number(widget):
    browser_sends(widget, boxes=[[20, 10, 60, 30]])
    assert widget._answer["request"] == 1
    browser_sends(widget, boxes=[[20, 10, 40, 30]], points=[[3, 3, 1]])
    assert widget._answer["request"] == 2
    assert widget.mask[3, 3]


def test_boxes_and_points_of_one_message_are_one_question(image):
    asked = []
    widget = BoxPrompt(image, lambda *prompt: asked.append(prompt) or fill(*prompt))
    browser_sends(widget, boxes=[[1, 1, 5, 5]], points=[[2, 2, 1]])
    assert len(asked) == 1
    browser_sends(widget, boxes=[[1, 1, 5, 5]], points=[[2, 2, 1]])
    assert len(asked) == 1, "the same again is no new question"


@pytest.mark.parametrize(
    "bad",
    [
        {"boxes": [[5, 5, 5, 9]]},
        {"boxes": [[0, 0, 101, 9]]},
        {"boxes": [[0, 0, 9]]},
        {"points": [[1, 1]]},
        {"points": [[1, 1, 2]]},
        {"points": [[100, 1, 1]]},
    ],
)
def test_a_prompt_that_is_none_is_refused_and_changes_nothing(widget, bad):
    widget.boxes = [[20, 10, 60, 30]]
    with pytest.raises(PromptError):
        widget.prompt(**bad)
    with pytest.raises(PromptError):
        setattr(widget, *next(iter(bad.items())))
    assert widget.boxes == [[20, 10, 60, 30]]
    assert widget.dice == 1.0


def test_background_clicks_alone_ask_for_more(widget):
    widget.points = [[5, 5, 0]]
    assert widget.mask is None
    assert "click on the lesion" in widget.status


def test_without_scores_and_truth_the_caption_says_how_much(image):
    widget = BoxPrompt(image, lambda image, boxes, points: fill(image, boxes, points)[0].any(axis=0))
    widget.boxes = [[0, 0, 50, 60]]
    assert widget._answer["captions"] == ["50.0 % of the image"]
    assert widget.dice is None


@pytest.mark.parametrize(
    "result",
    [
        np.zeros((60, 99), bool),
        np.zeros((60, 100)),
        np.zeros((0, 60, 100), bool),
        (np.zeros((2, 60, 100), bool), [0.5]),
    ],
)
def test_an_answer_of_the_wrong_kind_is_named(result):
    with pytest.raises(ShapeError):
        read_answer(result, (60, 100), None, 0.0)


# History


def test_undo_goes_back_one_change_at_a_time_and_clear_can_be_undone(widget):
    first, second = [[20, 10, 60, 30]], [[0, 0, 10, 10]]
    widget.boxes = first
    browser_sends(widget, boxes=second)
    widget.clear()
    assert (widget.boxes, widget.mask) == ([], None)
    widget.undo()
    assert widget.boxes == second
    widget._on_message(widget, {"do": "undo"}, [])  # Ctrl+Z on the canvas
    assert widget.boxes == first
    assert widget.dice == 1.0
    widget.undo()
    widget.undo()
    assert widget.boxes == []


def test_another_image_starts_anew(widget):
    widget.boxes = [[20, 10, 60, 30]]
    widget.set_image(np.zeros((8, 9, 3), np.uint8), name="other")
    assert (widget.boxes, widget.mask, widget.name) == ([], None, "other")
    assert widget._answer["layers"] == [None]
    widget.undo()
    assert widget.boxes == []


# Errors and threads


def test_an_error_of_the_model_is_shown_kept_and_overcome(image):
    def fails(image, boxes, points):
        if boxes[0, 0] < 10:
            raise ValueError("no such place")
        return fill(image, boxes, points)

    widget = BoxPrompt(image, fails)
    browser_sends(widget, boxes=[[5, 5, 20, 20]])
    assert widget.state == "error"
    assert widget.status == "fails: ValueError: no such place"
    assert isinstance(widget.error, ValueError)
    assert widget._answer["layers"] == [None]
    with pytest.raises(ValueError, match="no such place"):
        widget.prompt(boxes=[[6, 5, 20, 20]])
    browser_sends(widget, boxes=[[50, 5, 60, 20]])
    assert (widget.state, widget.error) == ("ready", None)
    assert widget.mask.any()


def test_an_error_while_encoding_is_shown(image):
    class Broken:
        def prepare(self, image, report):
            raise MemoryError("too large")

        def __call__(self, image, boxes, points):
            return fill(image, boxes, points)

    widget = BoxPrompt(image, {"big": Broken()})
    assert widget.state == "error"
    assert widget.status == "big: encoding image: MemoryError: too large"


def test_a_box_that_the_browser_should_not_have_sent_is_shown_and_put_back(widget):
    widget.boxes = [[20, 10, 60, 30]]
    browser_sends(widget, boxes=[[20, 10, 600, 30]])
    assert widget.state == "error"
    assert "leaves the image" in widget.status
    assert widget.boxes == [[20, 10, 60, 30]]


def test_changes_from_two_threads_take_turns_and_the_last_box_stays(image):
    inside, overlaps = [], []

    def slow(image, boxes, points):
        inside.append(1)
        overlaps.append(len(inside) > 1)
        time.sleep(0.01)
        inside.pop()
        return fill(image, boxes, points)

    widget = BoxPrompt(image, slow)

    def drag():
        for left in range(10):
            browser_sends(widget, boxes=[[left, 0, 50, 50]])

    threads = [threading.Thread(target=drag) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not any(overlaps)
    assert widget.boxes == [[9, 0, 50, 50]]
    assert np.argwhere(widget.mask).min(axis=0).tolist() == [0, 9]


def test_what_is_no_image_no_truth_or_no_model_is_refused(image):
    with pytest.raises(DataError, match="uint8"):
        BoxPrompt(image / 255, fill)
    with pytest.raises(DataError, match="truth"):
        BoxPrompt(image, fill, np.zeros((3, 3), bool))
    with pytest.raises(ConfigError):
        BoxPrompt(image, {})
    with pytest.raises(ConfigError):
        BoxPrompt(image, {"a": 3})


def test_the_image_is_a_copy_so_that_its_embedding_stays_true(image):
    widget = BoxPrompt(image, fill)
    image[:] = 9
    assert not widget.image.any()
    with pytest.raises(ValueError, match="read-only"):
        widget.image[0] = 1


# Pictures for the browser


def test_large_images_are_sent_smaller_and_masks_keep_their_size(image):
    assert shown_size((600, 300)) == (600, 300)
    assert shown_size((5000, 2500)) == (MAX_SHOWN, MAX_SHOWN // 2)
    mask = np.zeros((5000, 2500), bool)
    mask[2500:, :1250] = True
    layer = mask_layer(mask)
    assert (layer["x"], layer["y"]) == (0, MAX_SHOWN // 2)
    assert decoded(layer).shape == (MAX_SHOWN // 2, MAX_SHOWN // 4)
    wide = BoxPrompt(np.zeros((1500, 3000, 3), np.uint8), fill)
    wide.boxes = [[0, 0, 3000, 1500]]
    assert wide.mask.shape == (1500, 3000)
    assert wide.mask.all()


@pytest.mark.parametrize(("shape", "kind"), [((90, 60), "PNG"), ((1500, 1500), "JPEG")])
def test_small_images_are_sent_without_loss(shape, kind):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    layer = image_layer(image)
    assert Image.open(io.BytesIO(layer["bytes"])).format == kind
    assert layer["type"] == f"image/{kind.lower()}"
    if kind == "PNG":
        assert np.array_equal(decoded(layer), image)


def test_an_empty_mask_has_no_layer():
    assert mask_layer(np.zeros((4, 4), bool)) is None


# Segmenter behind it


def test_masks_and_scores_are_those_of_the_segmenter(segmenter):
    image = reference_image()
    widget = BoxPrompt(image, segmenter)
    widget.boxes = BOX[None]
    direct = segmenter.predict(image, boxes=BOX)
    assert np.array_equal(widget.mask, direct.masks[0, 0])
    np.testing.assert_allclose(widget.answer.scores, direct.scores[:, 0], rtol=1e-6)


def test_an_image_is_encoded_once_for_a_base_and_its_tuned_decoder(segmenter, tiny_sam):
    from helpers import make_tiny_sam

    tuned = make_tiny_sam()
    with_other_decoder = make_tiny_sam(seed=1).mask_decoder.state_dict()
    tuned.mask_decoder.load_state_dict(with_other_decoder)
    cache = EmbeddingCache()
    models = {"base": SegmenterPredictor(segmenter, cache=cache)}
    models["tuned"] = SegmenterPredictor(Segmenter(tuned, "cpu", precision="fp32"), cache=cache)
    widget = BoxPrompt(reference_image(), models)
    widget.boxes = BOX[None]
    widget.boxes = BOX[None] + 5
    assert cache.encoded == 1
    assert not np.array_equal(widget.answers["base"].masks, widget.answers["tuned"].masks)

    other_encoder = Segmenter(make_tiny_sam(seed=2), "cpu", precision="fp32")
    widget.set_models(SegmenterPredictor(other_encoder, cache=cache))
    assert cache.encoded == 2
    assert widget.boxes == (BOX[None] + 5).tolist(), "another model is asked about the same box"
    assert widget.mask is not None


def test_the_least_recently_used_embedding_goes_first(segmenter):
    cache = EmbeddingCache(size=2)
    predictor = SegmenterPredictor(segmenter, cache=cache)
    a, b, c = (np.full((20, 30, 3), value, np.uint8) for value in (10, 100, 200))
    for image in (a, b, a, c):
        predictor.prepare(image)
    assert (len(cache), cache.encoded) == (2, 3)
    predictor.prepare(a)
    assert cache.encoded == 3
    predictor.prepare(b)
    assert cache.encoded == 4


def test_an_embedding_that_lies_in_the_segmenters_store_is_taken_from_there(segmenter, tmp_path):
    image = reference_image()
    segmenter.store = EmbeddingStore.for_model(segmenter.info, segmenter.precision, tmp_path)
    case = Case("x", image, np.ones(image.shape[:2], bool))
    segmenter.store.build([(case.image_digest, lambda: segmenter.embed(image).features[0])])
    cache = EmbeddingCache()
    predictor = SegmenterPredictor(segmenter, cache=cache)
    masks, _ = predictor(image, BOX[None], np.zeros((0, 3)))
    assert cache.encoded == 0
    assert (masks[0] != segmenter.predict(image, boxes=BOX).masks[0, 0]).mean() < 5e-3, "but for half precision"


def test_progress_of_an_encoding_rises_to_one(segmenter):
    told = []
    SegmenterPredictor(segmenter, cache=EmbeddingCache()).prepare(reference_image(), told.append)
    assert told == sorted(told)
    assert len(told) >= 2
    assert told[-1] == 1.0


def test_all_models_run_on_one_thread_whoever_asks(segmenter, monkeypatch):
    threads = set()
    predict = Segmenter.predict
    monkeypatch.setattr(
        Segmenter, "predict", lambda *a, **k: threads.add(threading.current_thread().name) or predict(*a, **k)
    )
    widget = BoxPrompt(reference_image(), segmenter)
    widget.boxes = BOX[None]
    asks = [
        threading.Thread(target=browser_sends, args=(widget,), kwargs={"boxes": [[5, 5, 90, 90 + i]]}) for i in (1, 2)
    ]
    for ask in asks:
        ask.start()
    for ask in asks:
        ask.join()
    assert len(threads) == 1
    assert threads != {threading.current_thread().name}


def test_each_point_refines_the_box_that_it_lies_in_or_is_nearest_to():
    boxes = np.array([[0, 0, 50, 50], [10, 10, 30, 30], [80, 80, 90, 90]], float)
    owners = [owner(np.array(point), boxes) for point in [(20, 20, 1), (40, 40, 1), (70, 95, 0), (99, 99, 0)]]
    assert owners == [1, 0, 2, 2]
    calls = prompt_calls(boxes, np.array([[20, 20, 1], [25, 25, 0.0]]))
    assert [("points" in call) for call in calls] == [False, True, False]
    assert calls[1]["labels"].tolist() == [1, 0]


def test_clicks_change_the_answer_of_their_box_alone(segmenter):
    predictor = SegmenterPredictor(segmenter, cache=EmbeddingCache())
    image, boxes = reference_image(), np.array([BOX, [10, 10, 60, 90]], np.float32)
    plain, _ = predictor(image, boxes, np.zeros((0, 3), np.float32))
    refined, _ = predictor(image, boxes, np.array([[240, 175, 1], [260, 180, 0]], np.float32))
    assert not np.array_equal(plain[0], refined[0])
    assert (plain[1] != refined[1]).mean() < 1e-3


@pytest.mark.parametrize(
    "prompt",
    [
        {"boxes": [BOX.tolist(), [10, 10, 60, 90]]},
        {"boxes": [BOX.tolist()], "points": [[240, 175, 1], [20, 20, 0]]},
        {"points": [[240, 175, 1]]},
    ],
)
def test_the_call_that_is_written_out_gives_the_same_mask(segmenter, monkeypatch, prompt):
    widget = BoxPrompt(reference_image(), segmenter)
    widget.prompt(**prompt)
    monkeypatch.setattr(Segmenter, "load", classmethod(lambda cls, *_, **__: segmenter))  # tiny-sam lies nowhere
    written = python_call(widget, "from reference_image import reference_image\nimage = reference_image()")
    names = {}
    exec(written, names)
    assert np.array_equal(names["mask"], widget.mask)


def test_a_model_of_ones_own_gets_a_call_too(widget, image):
    with pytest.raises(PromptError, match="no prompt"):
        python_call(widget)
    widget.prompt(boxes=[[20, 10, 60, 30]])
    names = {"fill": fill, "blank": image}
    exec(python_call(widget, "image = blank"), names)
    assert np.array_equal(names["masks"][0], widget.answer.masks)


# Files


def test_saved_mask_and_prompts_read_back(widget, tmp_path):
    with pytest.raises(PromptError, match="no mask"):
        save_mask(widget, tmp_path / "no.png")
    assert not list(tmp_path.iterdir())
    widget.prompt(boxes=[[20, 10, 60, 30]], points=[[3, 4, 1]])
    saved = np.asarray(Image.open(save_mask(widget, tmp_path / "deep" / "mask.png")))
    assert np.array_equal(saved == 255, widget.mask)
    assert set(np.unique(saved)) == {0, 255}
    content = json.loads(save_prompts(widget, tmp_path / "prompts.json").read_text())
    assert (content["image"], content["width"], content["height"]) == ("blank", 100, 60)
    assert (content["boxes"], content["points"]) == ([[20, 10, 60, 30]], [[3, 4, 1]])
    assert content["answers"]["fill"]["dice"] == widget.dice


def encoded(array, kind="PNG", mode=None, **options):
    buffer = io.BytesIO()
    Image.fromarray(array, mode).save(buffer, kind, **options)
    return buffer.getvalue()


def test_uploads_of_every_kind_become_upright_rgb():
    rng = np.random.default_rng(0)
    gray = rng.integers(0, 255, (40, 60), np.uint8)
    assert np.array_equal(read_upload("gray.png", encoded(gray)).image, np.repeat(gray[..., None], 3, 2))
    deep = (gray.astype(np.uint16) + 1) * 100
    stretched = read_upload("deep.png", encoded(deep)).image
    assert (stretched.min(), stretched.max()) == (0, 255)
    clear = np.dstack([gray, gray, gray, np.zeros_like(gray)])
    assert not read_upload("clear.png", encoded(clear)).image.any()
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown a quarter turn clockwise
    assert read_upload("phone.jpg", encoded(gray, "JPEG", exif=turned)).image.shape == (60, 40, 3)


NOISE = np.random.default_rng(0).integers(0, 255, (40, 40), np.uint8)


@pytest.mark.parametrize("content", [b"", b"not an image", encoded(NOISE)[:500]], ids=["empty", "text", "half"])
def test_a_wrong_upload_is_named(content):
    with pytest.raises(DataError, match=r"^holiday\.png: not a readable image"):
        read_upload("holiday.png", content)


def test_a_decompression_bomb_is_refused_before_it_is_unpacked():
    bomb = encoded(np.zeros((9500, 9500), bool))
    assert len(bomb) < 20_000
    with pytest.raises(DataError, match="bomb"):
        read_upload("bomb.png", bomb)


def test_folders_with_masks_give_truth_and_folders_of_images_do_not(tmp_path):
    save_folder(phantom_dataset(n_train=4, n_dev=0, n_val=2), tmp_path / "set", show_progress=False)
    source = picture_source(tmp_path / "set")
    assert source.names == ["endoscopy-val-0000", "endoscopy-val-0001"]
    picture = source.load(source.names[0])
    assert picture.truth.any()
    names = {}
    exec(picture.code, names)
    assert np.array_equal(names["image"], picture.image)

    plain = picture_source(tmp_path / "set" / "images")
    assert len(plain.names) == 6
    assert plain.load(plain.names[0]).truth is None
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no file"):
        picture_source(tmp_path / "empty")
    with pytest.raises(ConfigError, match="unknown"):
        picture_source("phantoms")


# The panel


def shade(image, boxes, points):
    """Another model: dark pixels of the boxes."""
    masks, _ = fill(image, boxes, points)
    return masks & (image.mean(axis=2) < 100)


@pytest.fixture
def demo(cache, tmp_path):
    models = {"fill": fill, "shade": shade}
    return box_prompt_demo(models, data=("phantom", "phantom-ultrasound"), save_to=tmp_path / "saved")


def upload(demo, name, content):
    """What the canvas sends, in parts as it does."""
    parts = [content[: len(content) // 2], content[len(content) // 2 :]]
    for part, piece in enumerate(parts):
        message = {"do": "upload", "name": name, "part": part, "parts": 2}
        demo.canvas._on_message(demo.canvas, message, [memoryview(piece)])


def test_pickers_show_another_image(demo):
    assert demo.canvas.name == "endoscopy-val-0000"
    demo.image.value = "endoscopy-val-0002"
    assert demo.canvas.name == "endoscopy-val-0002"
    demo.source.value = "phantom-ultrasound"
    assert (demo.image.value, demo.canvas.name) == ("ultrasound-val-0000", "ultrasound-val-0000")
    assert demo.canvas.truth.any()


def test_models_change_under_the_same_box_and_stand_side_by_side(demo):
    demo.canvas.prompt(boxes=[[10, 10, 90, 90]])
    filled = demo.canvas.mask
    demo.beside.value = "shade"
    assert list(demo.canvas.answers) == ["fill", "shade"]
    demo.model.value = "shade"
    assert list(demo.canvas.answers) == ["shade"]
    assert demo.canvas.mask.sum() < filled.sum()
    demo.beside.value = NOTHING
    assert demo.canvas._models == ["shade"]


def test_an_upload_is_shown_and_kept_in_the_list(demo):
    gray = np.arange(200, dtype=np.uint8).reshape(10, 20)
    upload(demo, "mine.png", encoded(gray))
    assert (demo.canvas.name, demo.source.value, demo.image.value) == ("mine.png", UPLOADS, "mine.png")
    assert demo.canvas.image.shape == (10, 20, 3)
    assert demo.canvas.truth is None
    upload(demo, "mine.png", encoded(gray.T.copy()))
    assert demo.canvas.image.shape == (20, 10, 3), "a new file of the same name replaces the old one"
    demo.source.value = "phantom"
    demo.source.value = UPLOADS
    assert demo.canvas.name == "mine.png"


def test_a_wrong_upload_is_shown_as_an_error_and_the_image_stays(demo):
    upload(demo, "notes.txt", b"not an image")
    assert demo.canvas.state == "error"
    assert demo.canvas.status.startswith("your file: notes.txt: not a readable image")
    assert demo.canvas.name == "endoscopy-val-0000"


def test_a_folder_and_a_checkpoint_are_opened_by_name(demo, tmp_path):
    save_folder(phantom_dataset(n_train=2, n_dev=0, n_val=1, seed=5), tmp_path / "mine", show_progress=False)
    demo.folder.value = str(tmp_path / "mine" / "images")
    assert demo.source.value == "folder images"
    assert len(demo.image.options) == 3
    demo.folder.value = str(tmp_path / "nowhere")
    assert demo.canvas.state == "error"
    demo.checkpoint.value = str(tmp_path / "nowhere")
    assert "nowhere" in demo.canvas.status
    assert demo.model.value == "fill"


def test_buttons(demo, tmp_path):
    def press(text):
        demo.buttons[text].click()

    press("Save mask")
    assert (demo.canvas.state, "no mask" in demo.canvas.status) == ("error", True)
    demo.canvas.prompt(boxes=[[10, 10, 90, 90]])
    press("Clear")
    assert demo.canvas.boxes == []
    press("Undo")
    assert demo.canvas.boxes == [[10, 10, 90, 90]]
    for _ in range(2):
        press("Save mask")
        press("Save prompts")
    names = sorted(path.name for path in (tmp_path / "saved").iterdir())
    stem = "endoscopy-val-0000"
    assert names == [f"{stem}_mask.png", f"{stem}_mask_2.png", f"{stem}_prompts.json", f"{stem}_prompts_2.json"]
    press("Copy Python call")
    assert demo.canvas._clipboard["text"] == demo.call.value
    assert "load_data('phantom'" in demo.call.value


@pytest.mark.slow
def test_the_real_model_with_a_decoder_from_a_folder(tmp_path):
    base = Segmenter.load("mobile-sam", precision="fp32")
    card = {"base": "mobile-sam", "base_digest": base.info.base_digest}
    state = part_state(base.model, ["mask_decoder"])
    state["mask_decoder.output_hypernetworks_mlps.0.proj_out.bias"] += 0.2
    save_decoder(state, tmp_path / "mine", card)
    demo = box_prompt_demo()
    truth = demo.picture.truth
    rows, columns = np.flatnonzero(truth.any(axis=1)), np.flatnonzero(truth.any(axis=0))
    box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    demo.canvas.prompt(boxes=[box])
    assert demo.canvas.dice > 0.9
    zero_shot = demo.canvas.mask
    before = demo.canvas.predictors["zero-shot"].cache.encoded
    demo.checkpoint.value = str(tmp_path / "mine")
    assert (demo.model.value, demo.canvas.state) == ("mine", "ready")
    assert demo.canvas.predictors["mine"].cache.encoded == before, "base and decoder share the embedding"
    assert not np.array_equal(zero_shot, demo.canvas.mask)
    demo.buttons["Copy Python call"].click()
    names = {}
    exec(demo.call.value, names)
    assert np.array_equal(names["mask"], demo.canvas.mask)


def test_importing_the_package_loads_no_widget_library():
    import subprocess
    import sys

    script = "import medsam_helpers, sys; print({'anywidget', 'ipywidgets'} & sys.modules.keys())"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_the_canvas_files_are_in_the_installed_package(widget):
    assert "export default" in widget._esm
    assert ".box-prompt-canvas" in widget._css
    assert "http" not in widget._esm, "nothing is fetched from elsewhere"
    assert repr(widget) == "BoxPrompt(blank, 100 x 60, fill: 0 boxes, 0 points)"
