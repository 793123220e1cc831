"""`Segmenter`: against `SamModel` with `SamProcessor`, and several prompts against one at a time."""

from itertools import combinations

import numpy as np
import pytest
import torch
from helpers import draw_discs
from PIL import Image
from reference_image import BOX, reference_image
from transformers import SamProcessor
from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

from medsam_helpers.data.case import Case
from medsam_helpers.data.views import views_of
from medsam_helpers.errors import DataError, PromptError, ShapeError
from medsam_helpers.geometry import mirror
from medsam_helpers.prompts import correcting_click
from medsam_helpers.runs.embed import embed_cases
from medsam_helpers.sam.embeddings import EmbeddingStore
from medsam_helpers.sam.segmenter import Segmenter


@pytest.fixture
def with_tta(tiny_sam):
    return Segmenter(tiny_sam, "cpu", precision="fp32", tta=True)


image = pytest.fixture(reference_image)


def test_the_mask_is_the_one_that_transformers_own_processor_gives(segmenter, image):
    size = {"height": 128, "width": 128}
    processor = SamProcessor(SamImageProcessorPil(size={"longest_edge": 128}, pad_size=size))
    inputs = processor(images=image, input_boxes=[[BOX.tolist()]], return_tensors="pt")
    inputs["input_boxes"] = inputs["input_boxes"].float()
    with torch.inference_mode():
        output = segmenter.model(**{k: v for k, v in inputs.items() if k in ("pixel_values", "input_boxes")})
    sizes = inputs["original_sizes"], inputs["reshaped_input_sizes"]
    masks = processor.image_processor.post_process_masks(output.pred_masks, *sizes, pad_size=size)[0]
    ours = segmenter.predict(image, boxes=BOX, multimask=True)
    assert ours.masks.shape == (1, 3, 400, 600)
    assert np.array_equal(ours.best(), ours.masks[:, ours.scores[0].argmax()])
    assert (ours.masks != masks.numpy()).mean() < 1e-3
    np.testing.assert_allclose(ours.scores, output.iou_scores[0].numpy(), atol=1e-4)


@pytest.mark.parametrize("with_masks", [False, True])
def test_several_prompts_or_images_at_once_answer_as_each_alone(segmenter, image, with_masks):
    # More than are decoded at a time.
    boxes = np.array([BOX, *([5 * i, 3 * i, 5 * i + 60, 3 * i + 50] for i in range(36))], float)
    masks = torch.linspace(-5, 5, 37)[:, None, None, None].expand(-1, 1, 64, 64) if with_masks else None
    embedding = segmenter.embed(image)
    together = segmenter.predict(embedding, boxes=boxes, mask_logits=masks)
    for index in (0, 36):
        alone = segmenter.predict(embedding, boxes=boxes[index], mask_logits=masks[[index]] if with_masks else None)
        torch.testing.assert_close(together.logits[index], alone.logits[0], atol=1e-4, rtol=1e-4)
        assert (together.masks[index] != alone.masks[0]).mean() < 1e-3
    images = [image, image[:200, :100], image[::2, ::3]]
    each = torch.cat([segmenter.embed(one).features for one in images])
    torch.testing.assert_close(segmenter.encode(images), each, atol=1e-4, rtol=1e-3)


def test_points_boxes_and_masks_each_change_the_answer(segmenter, image):
    embedding, point, background = segmenter.embed(image), [240, 175], [[240, 175], [20, 20]]

    def answer(**prompts):
        return segmenter.predict(embedding, **prompts).logits

    assert torch.equal(answer(points=point), answer(points=[[point]])), "one point may come without brackets"
    answers = [
        answer(boxes=BOX),
        answer(points=point),
        answer(points=background, labels=[1, 0]),
        answer(points=background, labels=[1, 1]),
        answer(boxes=BOX, points=point),
        answer(boxes=BOX, mask_logits=answer(boxes=BOX)),
    ]
    assert all((first - second).abs().max() > 1e-5 for first, second in combinations(answers, 2))


@pytest.mark.parametrize(
    ("prompts", "error", "message"),
    [
        ({}, PromptError, "no prompt: pass boxes, or points"),
        ({"boxes": [[5, 5, 700, 9]]}, PromptError, "leaves the image, which is 600 wide and 400 high"),
        ({"points": [[6, 5]], "labels": [2]}, PromptError, "labels must be 0 or 1"),
        ({"boxes": [5, 5, 9, 9], "labels": [1]}, PromptError, "labels without points"),
        ({"boxes": [[5, 5, 9, 9]] * 2, "points": [[6, 5]]}, ShapeError, "each prompt needs one of each kind"),
        ({"boxes": [5, 5, 9, 9], "mask_logits": torch.zeros(1, 1, 8, 8)}, ShapeError, r"finite, \(N, 1, 64, 64\)"),
        ({"boxes": BOX, "mask_logits": torch.zeros(1, 1, 64, 64) / 0}, ShapeError, "mask_logits must be finite"),
    ],
)
def test_a_wrong_prompt_is_one_clear_error(segmenter, image, prompts, error, message):
    with pytest.raises(error, match=message):
        segmenter.predict(image, **prompts)


@pytest.mark.parametrize("kinds", [("boxes",), ("points",), ("boxes", "points")], ids="-".join)
def test_with_tta_the_answer_is_the_mean_of_both_views(segmenter, with_tta, image, kinds):
    transform, prompts = segmenter.info.transform(image.shape[:2]), {"boxes": BOX, "points": np.array([[240, 175]])}
    prompts = {kind: prompts[kind] for kind in kinds}
    mirrored = {kind: mirror(given, 600) for kind, given in prompts.items()}
    seen = segmenter.predict(image, **prompts, multimask=True)
    turned = segmenter.predict(image[:, ::-1], **mirrored, multimask=True)
    logits = [transform.logits_to_original(view.logits).numpy() for view in (seen, turned)]
    expected = (logits[0] + logits[1][..., ::-1]) / 2
    found = with_tta.predict(image, **prompts, multimask=True)
    assert (found.masks != (expected > 0)).mean() < 1e-4
    assert (found.masks != seen.masks).any(), "the mirror image counts"
    np.testing.assert_allclose(found.scores, (seen.scores + turned.scores) / 2, atol=1e-5)
    torch.testing.assert_close(found.logits, seen.logits, atol=1e-4, rtol=1e-4)
    with pytest.raises(PromptError, match="without tta"):
        with_tta.predict(image, **prompts, mask_logits=found.logits[:, :1])


def test_with_tta_each_case_takes_both_embeddings_from_the_store(with_tta, image, tmp_path, monkeypatch):
    case, boxes = Case("a", image, np.ones(image.shape[:2], bool)), np.array([BOX, [10, 10, 60, 90]])
    direct = with_tta.predict_case(case, boxes)
    assert (direct[0].shape, direct[1].shape) == ((2, *case.size_hw), (2,))
    with_tta.store = EmbeddingStore.for_model(with_tta.info, "fp32", tmp_path)
    assert embed_cases(with_tta, views_of([case], with_tta.views), show_progress=False)[0] == 2
    monkeypatch.setattr(with_tta, "encode", None)
    stored = with_tta.predict_case(case, boxes)
    assert (stored[0] != direct[0]).mean() < 1e-3  # the store keeps half precision
    np.testing.assert_allclose(stored[1], direct[1], atol=1e-2)


def test_a_picture_in_memory_may_be_gray_or_float_or_pillows_and_else_is_refused(segmenter, image):
    expected = segmenter.predict(image, boxes=BOX).logits
    for same in (Image.fromarray(image), image / 255, np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])):
        assert torch.equal(segmenter.predict(same, boxes=BOX).logits, expected)
    gray = image[..., 0]
    expected = segmenter.predict(np.dstack([gray] * 3), boxes=BOX).logits
    for same in (gray, gray[..., None], Image.fromarray(gray)):
        assert torch.equal(segmenter.predict(same, boxes=BOX).logits, expected)
    wrong = [image.astype(np.uint16), image.astype(float), image.transpose(2, 0, 1), image[0, 0]]
    said = ["uint16", "floats from 0 to 1", "channels come first", r"\(H, W, 3\)"]
    for picture, words in zip(wrong, said, strict=True):
        with pytest.raises(DataError, match=words):
            segmenter.predict(picture, boxes=BOX)
    with pytest.raises(ShapeError, match="there is no image to encode"):
        segmenter.encode([])


def test_a_click_alone_on_a_model_of_boxes_is_warned_of(tiny_sam, image):
    tiny_sam.config.boxes_only = True
    with pytest.warns(UserWarning, match="trained with boxes only"):
        Segmenter(tiny_sam, "cpu", precision="fp32").predict(image, points=[20, 20])


def test_each_click_of_the_simulated_user_is_that_on_the_largest_mistake_with_the_logits_before(segmenter):
    (case,) = draw_discs(1)
    masks, scores = segmenter.predict_clicks(case, 3)
    embedding, mask, logits, points = segmenter.embed(case.image), np.zeros_like(case.mask), None, []
    for found, score in zip(masks, scores, strict=True):
        points.append(correcting_click(mask, case.mask))
        xy, labels = np.split(np.array(points), [2], axis=1)
        asked = segmenter.predict(embedding, points=xy[None], labels=labels.T, mask_logits=logits)
        mask, logits = asked.masks[0, 0], asked.logits
        assert np.array_equal(found, mask)
        assert score == asked.scores[0, 0]
    alone = segmenter.predict(embedding, points=xy[None], labels=labels.T)
    assert not torch.equal(alone.logits, asked.logits), "without the logits it is another answer"
