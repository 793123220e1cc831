"""Pictures of prompts, answers, maps and published results: panels, titles; sizes of parts, and what a step keeps."""

import copy

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn
from transformers import SamConfig, SamModel

from medsam_helpers.errors import PromptError
from medsam_helpers.figures.sam import (
    answers,
    cosine_similarity_map,
    kept_for_backward,
    parameter_table,
    principal_components,
    show_map,
    show_points,
)
from medsam_helpers.geometry import ImageTransform
from medsam_helpers.sam.model import freeze_all_but
from medsam_helpers.sam.segmenter import Embedding


def test_clicks_lie_on_their_pixels_and_say_what_they_mean():
    lines = show_points(Figure().subplots(), np.array([[3, 4], [8, 1]]), [1, 0]).get_lines()
    assert [line.get_marker() for line in lines] == ["+", "x"]
    np.testing.assert_array_equal([line.get_xydata()[0] for line in lines], [[3, 4], [8, 1]])
    (click,) = show_points(Figure().subplots(), np.array([3, 4])).get_lines()
    assert click.get_marker() == "+", "without a label it says lesion"


def test_a_map_lies_over_the_greys_of_its_image(square):
    drawn = show_map(ax := Figure().subplots(), square.image, np.eye(*square.size_hw), "a map", strength=0.5)
    assert (drawn.get_alpha(), ax.get_title(), ax.images[1]) == (0.5, "a map", drawn)
    np.testing.assert_array_equal(ax.images[0].get_array(), square.image.mean(axis=2))


def test_answers_has_a_panel_a_mask_with_all_prompts(square):
    masks = {"empty": np.zeros_like(square.mask), "right": square.mask}
    box, points = np.array([[40, 20, 80, 40]]), np.array([[50, 30], [2, 2]])
    figure = answers(square, masks, boxes=box, points=points, labels=[1, 0], note="a phantom")
    panels = [(ax.get_title(), len(ax.patches), len(ax.get_lines())) for ax in figure.axes]
    assert (panels, figure.get_suptitle()) == ([("empty", 1, 2), ("right", 1, 2)], "a phantom")


def test_vit_b_has_the_parameters_that_the_paper_counts():
    with torch.device("meta"):
        table = parameter_table(SamModel(SamConfig()))["parameters"]
    sizes = {"vision_encoder": 89_670_912, "prompt_encoder": 6_476, "mask_decoder": 4_058_340, "total": 93_735_728}
    assert table.to_dict() == sizes


def test_a_small_network_by_hand():
    network = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 1))
    x = torch.ones(3, 10)
    # Each linear layer keeps its input, the ReLU its result, which is the second layer's input: counted once.
    assert kept_for_backward(network, lambda: network(x)) == (3 * 10 + 3 * 20) * 4
    # A normalisation keeps its input, and weights and buffers, which are not counted.
    norm = nn.BatchNorm1d(10, eps=0).eval()
    assert kept_for_backward(norm, lambda: norm(x)) == 3 * 10 * 4


def test_it_grows_with_the_batch_and_with_what_trains_on_the_meta_device_too(tiny_sam):
    def decoder_bytes(model, batch, device="cpu"):
        embeddings = torch.zeros(batch, 32, 16, 16, device=device)
        boxes = torch.tensor([[[10.0, 10.0, 90.0, 60.0]]], device=device).expand(batch, -1, -1)
        return kept_for_backward(model, lambda: model(image_embeddings=embeddings, input_boxes=boxes).pred_masks)

    freeze_all_but(tiny_sam, ("mask_decoder",))
    one, two, four = (decoder_bytes(tiny_sam, batch) for batch in (1, 2, 4))
    assert 3 * one < four <= 4 * one
    # Not equal: each device has an attention kernel of its own, and some keep one more table.
    assert decoder_bytes(copy.deepcopy(tiny_sam).to("meta"), 2, "meta") == pytest.approx(two, rel=0.15)
    frozen, pixels = tiny_sam.vision_encoder, torch.zeros(1, 3, 128, 128)
    assert kept_for_backward(frozen, lambda: frozen(pixels).last_hidden_state) == 0


def embedding_of(features, original_hw=(512, 1024)):
    """Channels (C, 16, 16) as the embedding of an image in a model space of 1024."""
    return Embedding(features[None], ImageTransform(original_hw))


def test_similarity_is_the_cosine_to_the_cell_that_the_pixels_centre_lies_in():
    features = torch.zeros(2, 16, 16)
    features[0, :, :8] = 3.0  # the left half points along the first axis,
    features[0, :, 8:], features[1, :, 8:] = 1.0, 1.0  # the right half at 45 degrees to it
    embedding = embedding_of(features)
    for pixel, left in (([511, 100], 1), ([512, 100], np.sqrt(0.5))):
        similar = cosine_similarity_map(embedding, np.array(pixel))
        assert similar.shape == (512, 1024)
        np.testing.assert_allclose(similar[:, :440], left, atol=1e-6)
        np.testing.assert_allclose(similar[:, 600:], 1.0 + np.sqrt(0.5) - left, atol=1e-6)
    # 8 pixels wide, 128 of the model space each: the centre of pixel 3 is in cell 7, that of pixel 4 in cell 8.
    small = embedding_of(features, (4, 8))
    assert cosine_similarity_map(small, [3, 0])[0, 0] == pytest.approx(1, abs=1e-6)
    assert cosine_similarity_map(small, [4, 0])[0, 0] == pytest.approx(np.sqrt(0.5), abs=1e-6)
    with pytest.raises(PromptError, match="lies outside the image"):
        cosine_similarity_map(embedding, np.array([5, 512]))


@pytest.mark.filterwarnings("error")
def test_components_are_those_of_numpy_and_padding_has_no_say():
    features = torch.randn(6, 16, 16, generator=torch.Generator().manual_seed(0))
    features *= torch.tensor([9.0, 5, 3, 1, 1, 1])[:, None, None]
    features[:, 8:] = 1000.0  # below the image: padding
    maps, shares = principal_components(embedding_of(features))
    cells = features[:, :8].flatten(1).numpy()
    values, vectors = np.linalg.eigh(np.cov(cells))
    np.testing.assert_allclose(shares, (values / values.sum())[:-4:-1], rtol=1e-4)
    assert maps.shape == (3, 512, 1024)
    assert (maps.min(), maps.max()) == (0, 1)
    # Rows next to the padding are mixed with it by the enlargement: compare well above it, at the cells' centres.
    strongest = (vectors[:, -1] @ cells).reshape(8, 16)[:6]
    assert abs(np.corrcoef(maps[0, 32:384:64, 32::64].ravel(), strongest.ravel())[0, 1]) > 0.97
    # Negated features have the same directions, whose sign is fixed: the maps are each other's negative.
    np.testing.assert_allclose(maps, 1 - principal_components(embedding_of(-features))[0], atol=1e-4)
    assert np.isfinite(principal_components(embedding_of(torch.ones(4, 16, 16)))[0]).all(), "without variance too"
