"""The transforms: parity with `SamProcessor`, round trips, and the bug of stretched ground truth."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import SamProcessor
from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

from medsam_helpers.errors import PromptError, ShapeError
from medsam_helpers.evaluation.metrics import dice
from medsam_helpers.geometry import ImageTransform, check_boxes, check_points, mirror

SIZES = [(300, 601), (622, 531), (64, 48)]


@pytest.fixture(scope="module")
def processor():
    """The Pillow class by its name: the plain `SamImageProcessor` needs torchvision."""
    return SamProcessor(SamImageProcessorPil())


def ellipse(hw, centre=(0.45, 0.55), radii=(0.2, 0.2)):
    """An ellipse; centre and radii as shares of height and width."""
    y, x = np.mgrid[: hw[0], : hw[1]]
    (cy, cx), (ry, rx) = np.multiply(centre, hw), np.multiply(radii, hw)
    return ((y + 0.5 - cy) / ry) ** 2 + ((x + 0.5 - cx) / rx) ** 2 <= 1


def round_trip(mask, **sizes):
    """What is left of a mask when a model is certain, and right, on the whole mask space."""
    transform = ImageTransform(mask.shape, **sizes)
    return (transform.logits_to_original(transform.mask_to_target(mask)[None, None] * 20 - 10)[0, 0] > 0).numpy()


@pytest.mark.parametrize("hw", SIZES)
def test_image_and_prompts_equal_the_processors(processor, hw):
    image = np.random.default_rng(0).integers(0, 256, (*hw, 3), dtype=np.uint8)
    boxes = [[3.0, 5.0, hw[1] - 1.5, hw[0] / 2], [0.0, 0.0, float(hw[1]), float(hw[0])]]
    points = [[10.0, 20.0], [hw[1] - 1.0, hw[0] - 1.0]]
    found = processor(images=image, input_boxes=[boxes], input_points=[[points]], return_tensors="pt")
    transform = ImageTransform(hw)
    np.testing.assert_allclose(transform.to_model(boxes), found["input_boxes"][0], rtol=1e-6)
    np.testing.assert_allclose(transform.to_model(points), found["input_points"][0, 0], rtol=1e-6)
    height, width = transform.resized_hw
    assert tuple(found["reshaped_input_sizes"][0].tolist()) == transform.resized_hw
    normalised = found["pixel_values"][0].numpy().transpose(1, 2, 0)
    assert not normalised[height:].any()
    assert not normalised[:, width:].any()
    normaliser = processor.image_processor
    pixels = (normalised[:height, :width] * normaliser.image_std + normaliser.image_mean) * 255
    np.testing.assert_allclose(pixels, transform.image_to_model(image), atol=1e-3)


@pytest.mark.parametrize("hw", SIZES)
@pytest.mark.parametrize("model_size", [1024, 256])
def test_logits_equal_the_processors_way_back(processor, hw, model_size):
    transform = ImageTransform(hw, model_size)
    logits = torch.randn(2, 3, 256, 256, generator=torch.Generator().manual_seed(1))
    (expected,) = processor.image_processor.post_process_masks(
        [logits], [hw], [transform.resized_hw], binarize=False, pad_size={"height": model_size, "width": model_size}
    )
    torch.testing.assert_close(transform.logits_to_original(logits), expected)
    assert transform.logits_to_original(logits.bfloat16()).dtype == torch.float32


def test_coordinates_by_hand():
    transform = ImageTransform((300, 600), model_size=256)
    assert transform.resized_hw == (128, 256)
    np.testing.assert_allclose(transform.to_model([[150, 75, 600, 300]]), [[64, 32, 256, 128]])
    np.testing.assert_allclose(transform.to_model([300, 150]), [128, 64])
    np.testing.assert_allclose(ImageTransform((300, 600)).to_grid([[150, 75, 600, 300]], 256), [[64, 32, 256, 128]])
    np.testing.assert_allclose(transform.to_grid([300, 150], 16), [8, 4])
    # 333 / 500 * 1024 = 681.98: the short side is rounded, so x and y scale by slightly different factors.
    np.testing.assert_allclose(ImageTransform((333, 500)).to_model([500, 333]), [1024, 682])


def test_target_by_hand():
    # 2 x 4 image in a model space of 4 and a mask space of 2: rows 2 and 3 are padding.
    transform = ImageTransform((2, 4), model_size=4, mask_size=2)
    target = transform.mask_to_target(np.array([[1, 1, 1, 0], [1, 1, 0, 0]], bool))
    assert target.tolist() == [[1, 0], [0, 0]]
    assert (target.dtype, target.shape) == (torch.float32, (2, 2))
    mask = np.array([[0, 1, 0, 0], [0, 0, 0, 0]], bool)
    assert transform.mask_to_target(mask).tolist() == [[0, 0], [0, 0]], "a quarter of a cell"
    assert transform.mask_to_target(mask, 4).nonzero().tolist() == [[0, 1]]
    # Finer than the model space: pixel (0, 1) covers rows 0 and 1, columns 2 and 3; rows 4 to 7 are padding.
    assert transform.mask_to_target(mask, 8).nonzero().tolist() == [[0, 2], [0, 3], [1, 2], [1, 3]]
    # A cell that is half lesion counts: padding is no lesion, yet the upper half of the lower cells decides.
    assert ImageTransform((3, 4), 4, 2).mask_to_target(np.ones((3, 4), bool)).tolist() == [[1, 1], [1, 1]]


sides, share_pairs = st.integers(16, 2000), st.tuples(st.floats(0, 1), st.floats(0, 1))


@settings(deadline=None)
@given(sides, sides, st.sampled_from([256, 1024]), st.tuples(share_pairs, share_pairs), st.booleans())
def test_coordinates_go_there_and_back(height, width, model_size, corners, squashed):
    transform = ImageTransform((height, width), model_size, squashed=squashed)
    corners = np.array(corners) * [width, height]
    there = transform.to_model(corners.ravel())
    np.testing.assert_allclose(transform.to_original(there), corners.ravel(), atol=1e-3)
    np.testing.assert_allclose(there.reshape(2, 2), transform.to_model(corners))
    limit = np.array(transform.resized_hw)[::-1]
    assert (there.reshape(2, 2) <= limit + 1e-3).all()
    assert max(transform.resized_hw) == model_size


@settings(max_examples=20, deadline=None)
@given(
    hw=st.tuples(st.integers(200, 900), st.integers(200, 900)).filter(lambda hw: 0.55 < hw[0] / hw[1] < 1.8),
    centre=st.tuples(st.floats(0.2, 0.8), st.floats(0.2, 0.8)),
    radii=st.tuples(st.floats(0.15, 0.4), st.floats(0.15, 0.4)),
    model_size=st.sampled_from([256, 1024]),
    squashed=st.booleans(),
)
def test_perfect_mask_stays_perfect_on_the_way_round(hw, centre, radii, model_size, squashed):
    mask = ellipse(hw, centre, radii)
    back = round_trip(mask, model_size=model_size, squashed=squashed)
    assert dice(back, mask) >= 0.99
    # Nothing moved: the centres of mass agree to a small part of the mask space's cell.
    shift = np.subtract(*(np.argwhere(m).mean(axis=0) for m in (back, mask)))
    assert np.abs(shift).max() < 0.25 * max(hw) / 256


@pytest.mark.parametrize(("hw", "score"), [((530, 621), 0.77), ((720, 480), 0.34), ((600, 600), 1.0)])
def test_stretched_ground_truth_scores_a_perfect_mask_badly(hw, score):
    # The same lesion, an eighth of the image, in images of several shapes. Only the square one is spared.
    def stretched(mask, hw):
        return np.asarray(Image.fromarray(mask).resize(hw[::-1], Image.Resampling.NEAREST))

    mask = ellipse(hw)
    assert dice(round_trip(mask), mask) >= 0.99
    perfect = ImageTransform(hw).mask_to_target(mask).numpy() > 0.5
    assert dice(perfect, stretched(mask, (256, 256))) == pytest.approx(score, abs=0.01), "in training"
    assert dice(stretched(perfect, hw), mask) == pytest.approx(score, abs=0.01), "of a prediction"
    squashed = ImageTransform(hw, squashed=True).mask_to_target(mask).numpy() > 0.5
    assert dice(squashed, stretched(mask, (256, 256))) >= 0.99, "for SAM 2 it is right"


def test_masks_without_an_outline_survive_and_those_of_another_size_are_refused():
    for fill in (False, True):
        mask = np.full((300, 500), fill)
        np.testing.assert_array_equal(round_trip(mask), mask)
    with pytest.raises(ShapeError, match=r"\(30, 60\) pixels \(H, W\), the array is \(300, 500\)"):
        ImageTransform((30, 60)).mask_to_target(mask)


@pytest.mark.parametrize(
    ("check", "prompts", "said"),
    [
        (check_boxes, [10, 5, 10, 9], "10 5 10 9 is empty"),
        (check_boxes, [0.31, 0.33, 0.62, 0.66], "looks normalised: multiply x by the width, 60, and y by 30"),
        (check_boxes, [10, 5, 10.5, 9], "10 5 10.5 9 is smaller than a pixel"),
        (check_boxes, [[0, 0, 5, 5], [0, 0, 61, 5]], "0 0 61 5 leaves the image, which is 60 wide and 30 high"),
        (check_boxes, [0, 0, np.inf, 5], "finite"),
        (check_boxes, np.empty((0, 4)), r"shape \(0, 4\)"),
        (check_points, [[5, 5], [60, 5]], "60 5 lies outside the image, which is 60 wide and 30 high"),
        (check_points, [np.nan, 5], "lies outside"),
        (check_points, [[1, 2], [3]], "must be"),
    ],
)
def test_good_prompts_come_back_as_float32_rows_and_bad_ones_are_named(check, prompts, said):
    good = [0, 0, 60, 30] if check is check_boxes else [59, 29]
    assert (check(good, (30, 60)).tolist(), check(good, (30, 60)).dtype) == ([good], np.float32)
    with pytest.raises(PromptError, match=said):
        check(prompts, (30, 60))


def test_what_is_mirrored_twice_is_as_it_was():
    for prompts, mirrored in (([[1, 0, 4, 2]], [[6, 0, 9, 2]]), ([[1, 0], [9, 5]], [[8, 0], [0, 5]])):
        assert mirror(np.array(prompts), 10).tolist() == mirrored
        assert mirror(np.array(mirrored), 10).tolist() == prompts
    assert mirror(np.array([9.6, 0]), 10).tolist() == [0, 0], "stays inside"


def test_a_strip_however_thin_keeps_a_pixel():
    transform = ImageTransform((1, 5000))
    assert transform.resized_hw == (1, 1024)
    assert transform.image_to_model(np.zeros((1, 5000, 3), np.uint8)).shape == (1, 1024, 3)
    assert transform.mask_to_target(np.ones((1, 5000), bool)).shape == (256, 256)
