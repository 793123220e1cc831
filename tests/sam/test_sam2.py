"""SAM 2, its decoder only: the traps of it, each on a tiny model of random weights in the hub's layout."""

import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import draw_discs, embedded, medsam, save_images, save_tiny_sam2
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import Sam2Config, Sam2Model

from medsam_helpers.device import autocast
from medsam_helpers.errors import ConfigError
from medsam_helpers.evaluation.evaluate import evaluate
from medsam_helpers.sam.loading import load_sam, model_info, pixel_values, state_digest
from medsam_helpers.sam.model import add_automatic_head, freeze_all_but
from medsam_helpers.sam.sam2 import Sam2
from medsam_helpers.sam.segmenter import Segmenter
from medsam_helpers.sam.tuned import load_checkpoint, read_card
from medsam_helpers.sam.unfrozen import unfrozen
from medsam_helpers.training.loop import fit
from medsam_helpers.training.recipes import RECIPES, get_recipe

SIDE, BOX = 128, [8.0, 6, 55, 50]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """As the hub has it: the video model, which holds the image model's weights and its own memory's."""
    return save_tiny_sam2(tmp_path_factory.mktemp("sam2") / "tiny-sam2")


@pytest.fixture
def model(folder):
    return load_sam(folder)


@pytest.fixture
def plain(folder):
    return Sam2Model.from_pretrained(folder).eval()


@pytest.mark.parametrize("multimask", [False, True], ids=["one mask", "three masks"])
@pytest.mark.parametrize("kinds", [("boxes",), ("points", "labels"), ("boxes", "points", "labels")], ids="-".join)
def test_it_answers_as_the_plain_model_does_to_a_squashed_image(model, plain, kinds, multimask):
    image = draw_discs(1)[0].image[:60, :99]
    prompts = {"boxes": [BOX], "points": [[[40.0, 30], [5, 55]]], "labels": [[1, 0]]}
    asked = {kind: prompts[kind] for kind in kinds}
    found = Segmenter(model, "cpu", "fp32").predict(image, **asked, multimask=multimask)
    height, width = image.shape[:2]
    squashed = np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR)) / 255
    pixels = torch.tensor((squashed - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).permute(2, 0, 1)[None].float()
    inputs = {f"input_{kind}": torch.tensor([given]) for kind, given in asked.items()}  # nested three and four deep
    for name in inputs.keys() - {"input_labels"}:
        pairs = inputs[name].unflatten(-1, (-1, 2)) * torch.tensor([SIDE / width, SIDE / height])
        inputs[name] = pairs.reshape(inputs[name].shape)
    plain.mask_decoder.dynamic_multimask_via_stability = False
    with torch.inference_mode():
        answer = plain(pixel_values=pixels, multimask_output=multimask, **inputs)
    torch.testing.assert_close(found.logits, answer.pred_masks[0], atol=1e-5, rtol=1e-4)
    np.testing.assert_allclose(found.scores, answer.iou_scores[0], atol=1e-5)
    large = F.interpolate(answer.pred_masks[0], (height, width), mode="bilinear")  # as its processor enlarges them
    assert (found.masks == (large.numpy() > 0)).mean() > 0.999
    assert 0.01 < found.masks.mean() < 0.99, "no two empty masks are compared"


def test_what_is_kept_of_an_image_gives_the_masks_of_its_pixels(model, tmp_path):
    cases = draw_discs(2)
    store = embedded(model, cases, tmp_path).store
    kept = torch.stack([store[case.image_digest] for case in cases]).float()
    pixels = torch.cat([pixel_values(case.image, model_info(model)) for case in cases])
    prompts = {"input_boxes": torch.tensor([[BOX, [20, 20, 60, 100]]]).expand(2, -1, -1)}
    with torch.inference_mode():
        expected = model(pixel_values=pixels, multimask_output=False, **prompts).pred_masks
        found = model(image_embeddings=kept, multimask_output=False, **prompts).pred_masks
        boxes = torch.tensor([[[0.0, 0, SIDE, SIDE]]] * 2)
        unasked = [model(image_embeddings=kept, **box).iou_scores for box in ({}, {"input_boxes": boxes})]
    assert torch.equal(*unasked), "without a prompt it is asked for a box round all, as a SAM is"
    assert found.shape == (2, 2, 1, SIDE // 4, SIDE // 4)
    torch.testing.assert_close(found, expected, atol=0.02 * expected.std().item(), rtol=0)  # half precision
    with torch.device("meta"):  # the real sizes, without weights
        whole = Sam2(Sam2Config()).get_image_embeddings(torch.empty(1, 3, 1024, 1024)).half()
    assert (whole.shape, round(whole.nbytes / 1e6, 1)) == ((1, 1024, 64, 64), 8.4)


def test_training_leaves_the_layers_that_the_kept_maps_came_through(model, folder, tmp_path):
    cases, before = draw_discs(6), load_sam(folder).state_dict()
    segmenter = embedded(model, cases, tmp_path / "store")
    kinds = ("box", "several", "mask", "none")
    recipe = get_recipe("quick").but(epochs=2, precision="bf16", lr=1e-2, warmup_steps=0, rounds=2, prompts=kinds)
    fit(model, cases[:4], cases[4:], recipe, segmenter.store, tmp_path / "run", show_progress=False)
    state = model.state_dict()
    trained = {name for name in state if not state[name].equal(before[name])}
    assert {"mask_decoder.upscale_conv1.weight", "mask_decoder.obj_score_token.weight"} <= trained
    assert not [name for name in trained if ".conv_s" in name or not name.startswith("mask_decoder.")]
    for case in cases:
        assert segmenter.encode([case.image])[0].half().equal(segmenter.store[case.image_digest])
    # From stored maps the two get no gradient anyway. Whoever trains from pixels needs them frozen too.
    freeze_all_but(model, ["mask_decoder"])
    model(pixel_values=torch.ones(1, 3, SIDE, SIDE)).pred_masks.sum().backward()
    decoder = model.mask_decoder
    assert decoder.upscale_conv1.weight.grad.abs().sum() > 0
    assert decoder.conv_s0.weight.grad is decoder.conv_s1.bias.grad is None


def test_one_mask_is_the_same_in_training_and_after(model, plain):
    boxes = torch.tensor([[BOX], [[20, 20, 60, 100]]])
    given = {"pixel_values": torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))}
    given |= {"input_boxes": boxes, "multimask_output": False}
    ours, theirs = ([one.train(on)(**given).pred_masks for on in (True, False)] for one in (model, plain))
    assert torch.equal(*ours)
    assert not torch.allclose(*theirs), "the plain one takes another mask"
    with autocast(torch.device("cpu"), "bf16"):
        half, _ = model.prompt_encoder(None, None, boxes, None)
    assert torch.equal(half, model.prompt_encoder(None, None, boxes, None)[0]), "a box stays where it is"


def test_a_run_its_checkpoint_and_its_export_give_the_masks_that_plain_transformers_gives(folder, plain, cache):
    root = cache.parent
    case = save_images(draw_discs(8), root / "discs", n_train=6)[7]
    how = ["--recipe", "quick", "--epochs", 1, "--batch", 2, "--precision", "fp32", "--prompts", "box,point"]
    where = ["--model", folder, "--data", root / "discs", "--output", root / "run"]
    assert medsam("finetune", *where, *how, "--json").json["n_train"] == 5
    model = load_checkpoint(root / "run")
    assert read_card(root / "run")["base_digest"] == model_info(model).base_digest == state_digest(plain)
    assert medsam("export", "--checkpoint", root / "run", "--output", root / "full").status == 0
    exported = Sam2Model.from_pretrained(root / "full")
    assert state_digest(exported) == state_digest(model) == state_digest(load_sam(root / "full"))
    assert exported.config.architectures == ["Sam2Model"]
    assert "Sam2Model.from_pretrained" in (root / "full" / "README.md").read_text()
    segmenter = Segmenter(model, "cpu", "fp32")
    asked = segmenter.prompt_inputs(segmenter.info.transform(case.size_hw), BOX) | {"multimask_output": False}
    with torch.inference_mode():
        masks = exported(pixel_values=pixel_values(case.image, segmenter.info), **asked).pred_masks[0]
    torch.testing.assert_close(segmenter.predict(case.image, boxes=BOX).logits, masks)
    table = evaluate([case], {"tuned": segmenter}, prompts=["exact+centre", "clicks:2", "none"], show_progress=False)
    assert np.isfinite(table["dice"]).all()


def test_a_file_that_holds_the_code_of_positions_once_gives_it_to_the_prompts_too(folder, tmp_path):
    shutil.copy(folder / "config.json", tmp_path)
    state, name = load_file(folder / "model.safetensors"), "positional_embedding"
    del state[f"prompt_encoder.shared_embedding.{name}"]
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    found = load_sam(tmp_path).state_dict()
    assert found[f"prompt_encoder.shared_embedding.{name}"].equal(found[f"shared_image_embedding.{name}"])


def test_what_would_train_its_encoder_or_needs_a_head_is_refused_in_one_sentence(model):
    for name in ("lora", "whole-encoder", "last-stage", "automatic"):
        with pytest.raises(ConfigError, match=r"cannot train in this model.*; the encoder of a SAM 2 stays as it is"):
            unfrozen(model, RECIPES[name].as_dict())
    for change in ({"augment": True}, {"gradient_checkpointing": True}):
        with pytest.raises(ConfigError, match=f"{next(iter(change))} needs an encoder that trains"):
            unfrozen(model, get_recipe("quick").but(**change).as_dict())
    with pytest.raises(ConfigError, match="a Sam2 cannot have an automatic head"):
        add_automatic_head(model)
    assert unfrozen(model, get_recipe("best").as_dict()) is model


@pytest.mark.hub
def test_pixels_are_those_of_its_own_processor(model):
    pytest.importorskip("torchvision")
    from transformers import Sam2ImageProcessor

    image = draw_discs(1)[0].image
    theirs = Sam2ImageProcessor(size={"height": SIDE, "width": SIDE})(image, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(pixel_values(image, model_info(model)), theirs, atol=0.03, rtol=0)  # two roundings
