"""The specialist: a U-Net behind SAM's interface, and what its box channel holds."""

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import draw_discs, embedded, medsam, save_images

from medsam_helpers.errors import ConfigError, PromptError
from medsam_helpers.figures.sam import parameter_table
from medsam_helpers.geometry import ImageTransform, fill_box
from medsam_helpers.runs.export import export_model
from medsam_helpers.runs.finetune import finetune
from medsam_helpers.runs.settings import RunConfig
from medsam_helpers.sam.loading import load_sam, pixel_values, state_digest
from medsam_helpers.sam.segmenter import Segmenter
from medsam_helpers.sam.tuned import load_checkpoint
from medsam_helpers.training.loop import fit
from medsam_helpers.training.recipes import get_recipe

BOX = np.array([[8, 10, 60, 50]], np.float32)


@pytest.mark.parametrize("name", ["unet", "unet-box"])
def test_it_takes_sams_place_in_the_segmenter(name):
    segmenter = Segmenter(load_sam(name), "cpu", precision="fp32")
    image = np.random.default_rng(0).integers(0, 256, (72, 96, 3), dtype=np.uint8)
    answer = segmenter.predict(image, boxes=np.concatenate([BOX, BOX + 10]))
    assert answer.masks.shape == (2, 1, 72, 96)
    assert np.isnan(answer.scores).all(), "it has no opinion of itself"
    assert answer.logits.shape == (2, 1, 256, 256)
    assert torch.equal(*answer.logits) is (name == "unet"), "only unet-box looks at the box"
    assert torch.equal(segmenter.embed(image).features, pixel_values(image, segmenter.info))
    assert segmenter.info.transform((300, 600)) == ImageTransform((300, 600), 256, 256)
    with pytest.raises(PromptError, match="no clicks, and no earlier mask"):
        segmenter.predict(image, points=np.array([10, 10]))
    with pytest.raises(ConfigError, match="one mask a box"):
        segmenter.predict(image, boxes=BOX, multimask=True)
    table = parameter_table(segmenter.model)
    assert 1.6e6 < table.loc["mask_decoder", "parameters"] == table.loc["total", "trainable"] < 1.7e6


def test_the_first_weights_are_the_same_each_time_and_leave_the_callers_random_numbers_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    assert state_digest(load_sam("unet-box")) == state_digest(load_sam("unet-box"))
    assert torch.equal(torch.rand(3), expected)


def test_the_box_is_a_channel_of_ones_inside_it():
    model, seen = load_sam("unet-box"), []
    model.mask_decoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    box = torch.tensor([[[1.2, 2.5, 60.49, 40.0]]])
    model(image_embeddings=torch.zeros(1, 3, 256, 256), input_boxes=box)
    assert (seen[0][0, 3].bool().numpy() == fill_box(box[0, 0].numpy(), (256, 256))).all()


def test_it_learns(tmp_path):
    cases, model = draw_discs(6), load_sam("unet-box")
    recipe = get_recipe("unet").but(epochs=3, batch=1, warmup_steps=2, ema_decay=0.5, lr=3e-3)
    store = embedded(model, cases, tmp_path / "store").store
    result = fit(model, cases[:4], cases[4:], recipe, store, tmp_path / "fit", show_progress=False)
    assert result.best_dev_dice > 0.8 > result.history["dev_dice"].iloc[0]


def test_the_whole_run_takes_its_name_and_gains_over_random_weights_not_over_a_zero_shot_model(tmp_path, cache):
    save_images(draw_discs(8), tmp_path / "data")
    arguments = ["--model", "unet-box", "--data", tmp_path / "data", "--recipe", "unet", "--epochs", 1]
    arguments += ["--batch", 1, "--lr", "3e-3", "--warmup-steps", 2, "--ema-decay", 0]
    trained = medsam("finetune", *arguments, "--output", tmp_path / "run", "--json")
    assert "gain over random weights" in trained.out
    assert set(pd.read_csv(tmp_path / "run" / "metrics.csv")["model"]) == {"box", "ellipse", "zero-shot", "tuned"}
    assert "| untrained |" in (tmp_path / "run" / "README.md").read_text()
    with pytest.raises(ConfigError, match="unet-box is no SAM, which transformers cannot load"):
        export_model(tmp_path / "run", tmp_path / "exported")
    assert not (tmp_path / "exported").exists()
    image = next((tmp_path / "data" / "images").iterdir())
    arguments = ["predict", "--checkpoint", tmp_path / "run", "--image", image, "--box", 5, 5, 50, 50]
    said = medsam(*arguments, "--output", tmp_path / "mask.png", "--json")
    assert said.json["iou_score"] == [None], "NaN is no JSON"
    again = ["--checkpoint", tmp_path / "run", "--data", tmp_path / "data", "--output", tmp_path / "again", "--json"]
    assert medsam("evaluate", *again).json["dice"] == trained.json["tuned_dice"] != trained.json["zero_shot_dice"]


@pytest.mark.slow
def test_a_pretrained_encoder_trains_along_and_comes_back(tmp_path, cache):
    save_images(draw_discs(8), tmp_path / "data")
    fresh, light = load_sam("unet-pretrained"), load_sam("mobile-sam")
    stem = light.vision_encoder.patch_embed.state_dict()
    assert all(weight.equal(stem[name]) for name, weight in fresh.vision_encoder.stem.state_dict().items())
    config = RunConfig(model="unet-pretrained", data=str(tmp_path / "data"), recipe="unet-pretrained", epochs=1)
    run = finetune(config, tmp_path / "run", show_progress=False)
    changed = {name.split(".")[0] for name, weight in run.tuned.model.state_dict().items()
               if not weight.equal(fresh.state_dict()[name])}  # fmt: skip
    assert changed == {"vision_encoder", "mask_decoder"}
    again = Segmenter(load_checkpoint(tmp_path / "run"), "cpu", precision="fp32")
    image = np.random.default_rng(0).integers(0, 256, (72, 96, 3), dtype=np.uint8)
    assert np.array_equal(again.predict(image).logits, Segmenter(run.tuned.model, "cpu", "fp32").predict(image).logits)
