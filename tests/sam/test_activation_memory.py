"""What is kept for the backward pass: worked out by hand, and the same on the device that computes nothing."""

import copy

import pytest
import torch
from helpers import make_tiny_sam
from torch import nn

from medsam_helpers.sam.activation_memory import kept_for_backward
from medsam_helpers.sam.parts import freeze_all_but

FLOAT = 4


def test_a_small_network_by_hand():
    network = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 1))
    x = torch.ones(3, 10)
    # Each linear layer keeps its input, the ReLU its result, which is the second layer's input: counted once.
    assert kept_for_backward(network, lambda: network(x)) == (3 * 10 + 3 * 20) * FLOAT
    # A normalisation keeps its input, and weights and buffers, which are not counted.
    norm = nn.BatchNorm1d(10, eps=0).eval()
    assert kept_for_backward(norm, lambda: norm(x)) == 3 * 10 * FLOAT


def decoder_bytes(model, batch, device):
    config = model.config.prompt_encoder_config
    inputs = {
        "image_embeddings": torch.zeros(batch, config.hidden_size, *[config.image_embedding_size] * 2, device=device),
        "input_boxes": torch.tensor([[[10.0, 10.0, 90.0, 60.0]]], device=device).expand(batch, -1, -1),
    }
    return kept_for_backward(model, lambda: model(**inputs, multimask_output=False).pred_masks)


def test_it_grows_with_the_batch_and_with_what_trains_on_the_meta_device_too():
    model = make_tiny_sam()
    freeze_all_but(model, ("mask_decoder",))
    one, two, four = (decoder_bytes(model, batch, "cpu") for batch in (1, 2, 4))
    assert 3 * one < four <= 4 * one
    # Not equal: each device has an attention kernel of its own, and some keep one more table.
    assert decoder_bytes(copy.deepcopy(model).to("meta"), 2, "meta") == pytest.approx(two, rel=0.15)
    pixels = torch.zeros(1, 3, 128, 128)
    assert kept_for_backward(model, lambda: model.vision_encoder(pixels).last_hidden_state) == 0
    model.requires_grad_(True)
    assert kept_for_backward(model, lambda: model.vision_encoder(pixels).last_hidden_state) > one
