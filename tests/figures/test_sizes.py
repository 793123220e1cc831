"""The sizes of parts, and what a step keeps, by hand."""

import copy

import pytest
import torch
from torch import nn
from transformers import SamConfig, SamModel

from medsam_helpers.figures.sam import kept_for_backward, parameter_table
from medsam_helpers.sam.parts import freeze_all_but


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
    pixels = torch.zeros(1, 3, 128, 128)
    for trains in (False, True):
        tiny_sam.vision_encoder.requires_grad_(trains)
        kept = kept_for_backward(tiny_sam, lambda: tiny_sam.vision_encoder(pixels).last_hidden_state)
        assert kept > one if trains else kept == 0
