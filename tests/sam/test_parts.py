"""Parts: their sizes, which train, which changed."""

import copy

import pytest
import torch
from transformers import SamConfig, SamModel

from medsam_helpers.errors import ConfigError
from medsam_helpers.sam.parts import changed_parts, check_parts, freeze_all_but, parameter_table


def test_vit_b_has_the_parameters_that_the_paper_counts():
    with torch.device("meta"):
        table = parameter_table(SamModel(SamConfig()))["parameters"]
    sizes = {"vision_encoder": 89_670_912, "prompt_encoder": 6_476, "mask_decoder": 4_058_340, "total": 93_735_728}
    assert table.to_dict() == sizes


def test_freezing_leaves_gradients_to_the_named_parts_only(tiny_sam):
    trainable = freeze_all_but(tiny_sam, ["mask_decoder"])
    assert {id(p) for p in trainable} == {id(p) for p in tiny_sam.mask_decoder.parameters()}
    freeze_all_but(tiny_sam, ["mask_decoder", "prompt_encoder"])
    assert not tiny_sam.shared_image_embedding.positional_embedding.requires_grad
    assert tiny_sam.prompt_encoder.no_mask_embed.weight.requires_grad
    with pytest.raises(ConfigError, match="unknown part decoder: this model has vision_encoder, prompt_encoder"):
        freeze_all_but(tiny_sam, ["decoder"])
    with pytest.raises(ConfigError, match=r"unknown part last_stage: .*; mobile-sam-last-stage"):
        check_parts(tiny_sam, ["mask_decoder", "last_stage"])


def test_the_decoder_and_what_else_differs_from_the_base_has_changed(tiny_sam):
    model = copy.deepcopy(tiny_sam)
    assert changed_parts(model, tiny_sam) == ["mask_decoder"]
    with torch.no_grad():
        model.prompt_encoder.no_mask_embed.weight += 1
    assert changed_parts(model, tiny_sam) == ["prompt_encoder", "mask_decoder"]
