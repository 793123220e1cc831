"""A Segmenter behind the widget: its own masks, one encoding an image, one thread, points that refine boxes."""

import threading

import numpy as np
import pytest
from helpers import make_tiny_sam
from reference_image import BOX, reference_image

from medsam_helpers.data.case import array_digest
from medsam_helpers.sam.embeddings import EmbeddingStore
from medsam_helpers.sam.segmenter import Segmenter
from medsam_helpers.widgets import BoxPrompt
from medsam_helpers.widgets.predictors import EmbeddingCache, SegmenterPredictor, prompt_rounds

IMAGE, NO_POINTS = reference_image(), np.zeros((0, 3), np.float32)


@pytest.fixture
def predictor(segmenter):
    return SegmenterPredictor(segmenter, cache=EmbeddingCache(size=2))


def test_masks_and_scores_are_those_of_the_segmenter_with_test_time_augmentation_too(predictor, segmenter, tiny_sam):
    both_views = SegmenterPredictor(Segmenter(tiny_sam, "cpu", precision="fp32", tta=True), cache=predictor.cache)
    for predict in (predictor, both_views):
        masks, scores = predict(IMAGE, BOX[None], NO_POINTS)
        direct = predict.segmenter.predict(IMAGE, boxes=BOX)
        assert np.array_equal(masks[0], direct.masks[0, 0])
        np.testing.assert_allclose(scores, direct.scores[:, 0], rtol=1e-6)
    masks, _ = both_views(IMAGE, BOX[None], np.array([[240, 175, 1]]))
    clicked = both_views.segmenter.predict(IMAGE, boxes=BOX, points=[[240, 175]])
    assert np.array_equal(masks[0], clicked.masks[0, 0]), "of both views no logits go in"


def test_an_image_is_encoded_once_for_a_base_and_its_tuned_decoder(predictor):
    tuned, cache = make_tiny_sam(), predictor.cache
    tuned.mask_decoder.load_state_dict(make_tiny_sam(seed=1).mask_decoder.state_dict())
    models = {"base": predictor, "tuned": SegmenterPredictor(Segmenter(tuned, "cpu", precision="fp32"), cache=cache)}
    widget = BoxPrompt(IMAGE, models)
    widget.boxes = BOX[None]
    widget.boxes = BOX[None] + 5
    assert cache.encoded == 1
    assert not np.array_equal(widget.answers["base"].masks, widget.answers["tuned"].masks)
    other_encoder = Segmenter(make_tiny_sam(seed=2), "cpu", precision="fp32")
    widget.set_models(SegmenterPredictor(other_encoder, cache=cache))
    assert cache.encoded == 2


def test_the_least_recently_used_embedding_goes_first(predictor):
    a, b, c = (np.full((20, 30, 3), value, np.uint8) for value in (10, 100, 200))
    encoded = []
    for image in (a, b, a, c, a, b):
        predictor.prepare(image)
        encoded.append(predictor.cache.encoded)
    assert encoded == [1, 2, 2, 3, 3, 4]


def test_an_embedding_that_lies_in_the_segmenters_store_is_taken_from_there(predictor, segmenter, tmp_path):
    segmenter.store = EmbeddingStore.for_model(segmenter.info, segmenter.precision, tmp_path)
    segmenter.store.put(array_digest(IMAGE), segmenter.embed(IMAGE).features[0])
    masks, _ = predictor(IMAGE, BOX[None], NO_POINTS)
    assert predictor.cache.encoded == 0
    assert (masks[0] != segmenter.predict(IMAGE, boxes=BOX).masks[0, 0]).mean() < 5e-3, "but for half precision"


def test_all_models_run_on_one_thread_whoever_asks(predictor, segmenter):
    threads = set()
    segmenter.model.mask_decoder.register_forward_hook(lambda *_: threads.add(threading.current_thread()))
    ask = threading.Thread(target=predictor, args=(IMAGE, BOX[None], NO_POINTS))
    ask.start()
    ask.join()
    predictor(IMAGE, BOX[None], NO_POINTS)
    assert len(threads) == 1
    assert not threads & {threading.current_thread(), ask}


@pytest.mark.parametrize("first", ["box", "click", "proposal"])
def test_a_click_refines_the_answer_before_with_its_logits_in_one_decoding(with_head, first):
    predict, decoded = SegmenterPredictor(with_head, cache=EmbeddingCache()), []
    with_head.model.register_forward_hook(lambda *_: decoded.append(1))
    boxes = BOX[None] if first == "box" else np.zeros((0, 4))
    points, skipped = np.array([[240, 175, 1], [20, 20, 0], [30, 200, 1]], float), first == "click"
    expected = None
    if first != "click":
        expected = with_head.predict(IMAGE, boxes=boxes if len(boxes) else None)
    answers = [predict(IMAGE, boxes, points[:count], first == "proposal")[0] for count in range(skipped, 4)]
    assert len(decoded) == len(answers) + (not skipped), "one each, and the one above"
    for count, (masks,) in enumerate(answers, int(skipped)):
        if count:
            asked = {"points": points[:count, :2], "labels": points[:count, 2]}
            logits = None if expected is None else expected.logits
            expected = with_head.predict(IMAGE, boxes=boxes if len(boxes) else None, mask_logits=logits, **asked)
        assert np.array_equal(masks, expected.masks[0, 0])
    assert np.array_equal(predict(IMAGE, boxes, points[:2], first == "proposal")[0][0], answers[-2][0]), "undone"


@pytest.mark.parametrize(
    ("point", "refined"), [((20, 20, 1), 1), ((40, 40, 1), 0), ((70, 95, 0), 2)], ids=["smallest", "inside", "nearest"]
)
def test_each_point_refines_the_smallest_box_that_it_lies_in_or_the_nearest(point, refined):
    boxes = np.array([[0, 0, 50, 50], [10, 10, 30, 30], [80, 80, 90, 90]], float)
    calls = [rounds[-1] for rounds in prompt_rounds(boxes, np.array([point]))]
    assert [("points" in call) for call in calls] == [index == refined for index in range(3)]
    assert calls[refined]["labels"].tolist() == [point[2]]
