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


def test_weights_and_buffers_are_not_counted():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(7))
            self.register_buffer("scale", torch.ones(7))

        def forward(self):
            return self.weight * self.scale

    assert kept_for_backward(model := Scaled(), model) == 0


def decoder_bytes(model, batch, device):
    config = model.config.prompt_encoder_config
    inputs = {
        "image_embeddings": torch.zeros(batch, config.hidden_size, *[config.image_embedding_size] * 2, device=device),
        "input_boxes": torch.tensor([[[10.0, 10.0, 90.0, 60.0]]], device="cpu").to(device).expand(batch, -1, -1),
    }
    return kept_for_backward(model, lambda: model(**inputs, multimask_output=False).pred_masks)


def test_the_meta_device_comes_close_to_the_cpu():
    """Not equal: each device has an attention kernel of its own, and some keep one more table."""
    model = make_tiny_sam()
    freeze_all_but(model, ("mask_decoder",))
    on_meta = copy.deepcopy(model).to("meta")
    assert decoder_bytes(on_meta, 2, "meta") == pytest.approx(decoder_bytes(model, 2, "cpu"), rel=0.15)


def test_it_grows_with_the_batch_and_with_what_trains():
    model = make_tiny_sam()
    freeze_all_but(model, ("mask_decoder",))
    one, four = (decoder_bytes(model, batch, "cpu") for batch in (1, 4))
    assert 3 * one < four <= 4 * one
    pixels = torch.zeros(1, 3, 128, 128)

    assert kept_for_backward(model, lambda: model.vision_encoder(pixels).last_hidden_state) == 0
    model.requires_grad_(True)
    assert kept_for_backward(model, lambda: model.vision_encoder(pixels).last_hidden_state) > one
