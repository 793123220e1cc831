"""`Sam`: the answers of plain `SamModel`."""

import pytest
import torch

from medsam_helpers.device import autocast
from medsam_helpers.errors import ConfigError
from medsam_helpers.sam.model import Sam, check_parts, freeze_all_but


@pytest.mark.parametrize("multimask", [False, True], ids=["one mask", "three masks"])
def test_it_is_the_plain_model_value_and_gradient(tiny_sam, multimask):
    embeddings = torch.randn(2, 32, 16, 16, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[[8.0, 8, 90, 60], [30, 20, 100, 100]], [[0, 0, 64, 64], [5, 40, 128, 90]]])
    ours = Sam(tiny_sam.config)
    ours.load_state_dict(tiny_sam.state_dict())
    outcomes = []
    for model in (tiny_sam, ours):
        freeze_all_but(model, ["mask_decoder"])
        output = model(image_embeddings=embeddings, input_boxes=boxes, multimask_output=multimask)
        (output.pred_masks.square().mean() + output.iou_scores.square().mean()).backward()
        gradients = {name: p.grad for name, p in model.mask_decoder.named_parameters() if p.grad is not None}
        outcomes.append((output.pred_masks, output.iou_scores, gradients))
    (masks, scores, gradients), (our_masks, our_scores, our_gradients) = outcomes
    assert our_masks.shape == (2, 2, 3 if multimask else 1, 64, 64)
    torch.testing.assert_close(our_masks, masks, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(our_scores, scores)
    for name, gradient in gradients.items():
        # The plain one computes all four masks: the unwanted ones' networks get zeros there, and nothing here.
        ours = our_gradients.get(name, torch.zeros_like(gradient))
        torch.testing.assert_close(ours, gradient, atol=1e-5, rtol=1e-3, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.slow
def test_a_box_does_not_move_in_half_precision(tiny_sam):
    model = Sam(tiny_sam.config).eval()
    boxes = torch.tensor([[[3.3, 7.7, 90.1, 101.9]]])
    whole, _ = model.prompt_encoder(None, None, boxes, None)
    with autocast(torch.device("cpu"), "bf16"):
        half, _ = model.prompt_encoder(None, None, boxes, None)
    assert torch.equal(half, whole)
    names = [name for name, _ in model.named_parameters() if "positional" in name]
    assert names == ["shared_image_embedding.positional_embedding"], "one weight for image and prompts"


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
