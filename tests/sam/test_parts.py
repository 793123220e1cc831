"""Parts: which train, which changed."""

import copy

import pytest
import torch

from medsam_helpers.errors import ConfigError
from medsam_helpers.sam.parts import changed_parts, check_parts, freeze_all_but


def test_freezing_leaves_gradients_to_the_named_parts_only(tiny_sam):
    trainable = freeze_all_but(tiny_sam, ["mask_decoder"])
    assert {id(p) for p in trainable} == {id(p) for p in tiny_sam.mask_decoder.parameters()}
    freeze_all_but(tiny_sam, ["mask_decoder", "prompt_encoder"])
    assert not tiny_sam.shared_image_embedding.positional_embedding.requires_grad
    assert tiny_sam.prompt_encoder.no_mask_embed.weight.requires_grad
    with pytest.raises(ConfigError, match="decoder cannot train in this model, which has mask_decoder, prompt_encoder"):
        freeze_all_but(tiny_sam, ["decoder"])
    with pytest.raises(ConfigError, match=r"last_stage cannot train in this model.*unfrozen"):
        check_parts(tiny_sam, ["mask_decoder", "last_stage"])


def test_the_decoder_and_what_else_differs_from_the_base_has_changed(tiny_sam):
    model = copy.deepcopy(tiny_sam)
    assert changed_parts(model, tiny_sam) == ["mask_decoder"]
    with torch.no_grad():
        model.prompt_encoder.no_mask_embed.weight += 1
    assert changed_parts(model, tiny_sam) == ["prompt_encoder", "mask_decoder"]
