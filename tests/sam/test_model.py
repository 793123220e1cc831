"""`Sam`: the answers of plain `SamModel`; partially unfrozen, the answers of the whole."""

import pytest
import torch
from reference_image import BOX, reference_image

from medsam_helpers.device import autocast
from medsam_helpers.errors import ConfigError
from medsam_helpers.runs.export import export_model
from medsam_helpers.sam.loading import load_sam, model_info, pixel_values, state_digest
from medsam_helpers.sam.model import PartiallyUnfrozenSam, Sam
from medsam_helpers.sam.parts import freeze_all_but
from medsam_helpers.sam.tuned import load_checkpoint, part_state, save_decoder


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


@pytest.fixture(scope="module")
def unfrozen():
    return load_sam("mobile-sam-last-stage", show_progress=False)


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


def test_a_partially_unfrozen_model_answers_as_the_whole_one(mobile_sam, unfrozen):
    image, info = reference_image(), model_info(mobile_sam)
    box = torch.from_numpy(info.transform(image.shape[:2]).to_model(BOX))[None, None]
    with torch.inference_mode():
        whole = mobile_sam.get_image_embeddings(pixel_values(image, info))
        embedding = unfrozen.get_image_embeddings(pixel_values(image, info))
        expected = mobile_sam(image_embeddings=whole, input_boxes=box, multimask_output=False).pred_masks
        prompts = {"input_boxes": torch.cat([box, box / 2]), "multimask_output": False}
        at_once = unfrozen(image_embeddings=embedding.expand(2, -1, -1, -1), **prompts).pred_masks
        repeated = unfrozen(image_embeddings=embedding.repeat(2, 1, 1, 1), **prompts).pred_masks
    assert embedding.shape == (1, 320, 64, 64)
    torch.testing.assert_close(at_once[:1], expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(at_once, repeated, atol=1e-4, rtol=1e-4)
    # Same weights, other embeddings: the two must not share a store.
    assert model_info(unfrozen).base_digest == info.base_digest
    assert model_info(unfrozen).name != info.name
    with pytest.raises(ConfigError, match="unknown part last_stage: this model has vision_encoder, prompt_encoder"):
        freeze_all_but(mobile_sam, ["mask_decoder", "last_stage"])


@pytest.mark.slow
def test_the_last_stage_learns_and_the_rest_of_the_encoder_stays(unfrozen, tmp_path):
    before = {name: weight.clone() for name, weight in unfrozen.state_dict().items()}
    optimizer = torch.optim.AdamW(freeze_all_but(unfrozen, ["mask_decoder", "last_stage"]), lr=1e-3)
    inputs = torch.randn(1, 320, 64, 64, generator=torch.Generator().manual_seed(0))
    box = torch.tensor([[[100.0, 100.0, 600.0, 500.0]]])
    unfrozen(image_embeddings=inputs, input_boxes=box, multimask_output=False).pred_masks.square().mean().backward()
    optimizer.step()
    after = unfrozen.eval().state_dict()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"mask_decoder", "last_stage"}
    card = {"base": "mobile-sam-last-stage", "base_digest": model_info(unfrozen).base_digest}
    folder = save_decoder(part_state(unfrozen, changed), tmp_path / "run", card)
    loaded = load_checkpoint(folder)
    assert isinstance(loaded, PartiallyUnfrozenSam)
    assert state_digest(loaded) == state_digest(unfrozen)

    # Exported it is in one piece: the usual embedding, the trained answer.
    whole = load_sam(export_model(folder, tmp_path / "exported"))
    assert type(whole) is Sam
    pixels = pixel_values(reference_image(), model_info(unfrozen))
    with torch.inference_mode():
        answers = [
            model(image_embeddings=model.get_image_embeddings(pixels), input_boxes=box, multimask_output=False)
            for model in (loaded, whole)
        ]
    torch.testing.assert_close(answers[1].pred_masks, answers[0].pred_masks, atol=1e-3, rtol=1e-3)
    assert state_digest(loaded.joined()) == state_digest(whole)
