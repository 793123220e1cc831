"""Models: against what the original implementations answered, and through save, load and export."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from reference_image import BOX, reference_image
from safetensors.torch import load_file, save_file
from transformers import SamConfig, SamModel, SamProcessor, SamVisionConfig

from medsam_helpers.errors import CheckpointError, ConfigError
from medsam_helpers.sam.checkpoints import WEIGHTS, fetch
from medsam_helpers.sam.export import export_model
from medsam_helpers.sam.last_stage import PartiallyUnfrozenSam, joined
from medsam_helpers.sam.light import build_light, light_config, rename_keys
from medsam_helpers.sam.loading import load_sam, model_info, pixel_values, state_digest
from medsam_helpers.sam.parts import freeze_all_but, parameter_table
from medsam_helpers.sam.quick_decoder import with_quick_decoder
from medsam_helpers.sam.tiny_vit import TinyViT
from medsam_helpers.sam.tuned import load_checkpoint, part_state, save_decoder

LIGHT = ("mobile-sam", "lite-medsam")


@pytest.fixture(scope="module", params=LIGHT)
def light(request):
    return load_sam(request.param, show_progress=False)


@pytest.fixture(scope="module")
def mobile_sam():
    return load_sam("mobile-sam", show_progress=False)


def reference(name: str) -> dict[str, np.ndarray]:
    """Computed with the authors' own code (MobileSAM at 34bbbfd, LiteMedSAM at b0fab47) on the same pixels."""
    with np.load(Path(__file__).parent / f"reference_{name}.npz") as file:
        return dict(file)


@pytest.mark.slow
def test_encoder_and_decoder_answer_as_the_original_implementation(light):
    expected, info = reference(light.config.base_name), model_info(light)
    image = reference_image()
    with torch.inference_mode():
        embedding = light.get_image_embeddings(pixel_values(image, info))
        box = torch.from_numpy(info.transform(image.shape[:2]).to_model(BOX))[None, None]
        single = light(image_embeddings=embedding, input_boxes=box, multimask_output=False)
        several = light(image_embeddings=embedding, input_boxes=box, multimask_output=True)
    np.testing.assert_allclose(embedding[0, ::8, ::4, ::4], expected["embedding"], atol=2e-4)
    assert embedding.mean().item() == pytest.approx(expected["embedding_mean"].item(), abs=1e-5)
    assert embedding.std().item() == pytest.approx(expected["embedding_std"].item(), abs=1e-5)
    logits = single.pred_masks[0, 0, 0]
    np.testing.assert_allclose(logits[::4, ::4], expected["logits"], atol=5e-3)
    mask = np.unpackbits(expected["mask"]).reshape(256, 256).astype(bool)
    assert mask.sum() > 100, "the reference must hold a mask"
    assert ((logits > 0).numpy() != mask).mean() < 1e-4
    scores = torch.cat([single.iou_scores, several.iou_scores], dim=2)[0, 0]
    np.testing.assert_allclose(scores, expected["scores"], atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", LIGHT)
def test_the_original_file_fits_key_by_key(name):
    state = torch.load(fetch(WEIGHTS[name], show_progress=False), weights_only=True)
    renamed = rename_keys(state)
    model = build_light(light_config(*{"mobile-sam": (1024, "imagenet"), "lite-medsam": (256, "minmax")}[name]))
    assert set(renamed) == set(model.state_dict())
    del renamed["mask_decoder.iou_token.weight"]
    with pytest.raises(RuntimeError, match="iou_token"):
        model.load_state_dict(renamed, strict=True)


def test_folding_the_normalisation_changes_nothing_but_the_number_of_layers():
    torch.manual_seed(0)
    encoder = TinyViT(SamVisionConfig(image_size=256, patch_size=4)).eval()
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    pixels = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        before = encoder(pixels).last_hidden_state
        after = encoder.fuse()(pixels).last_hidden_state
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-3)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in encoder.modules())


@pytest.mark.parametrize("multimask", [False, True], ids=["one mask", "three masks"])
def test_the_quick_decoder_is_the_plain_one_value_and_gradient(tiny_sam, multimask):
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(2, 32, 16, 16, generator=generator)
    boxes = torch.tensor([[[8.0, 8, 90, 60], [30, 20, 100, 100]], [[0, 0, 64, 64], [5, 40, 128, 90]]])
    outcomes = []
    for model in (tiny_sam, with_quick_decoder(copy.deepcopy(tiny_sam))):
        freeze_all_but(model, ["mask_decoder"])
        output = model(image_embeddings=embeddings, input_boxes=boxes, multimask_output=multimask)
        (output.pred_masks.square().mean() + output.iou_scores.square().mean()).backward()
        gradients = {name: p.grad for name, p in model.mask_decoder.named_parameters() if p.grad is not None}
        outcomes.append((output.pred_masks, output.iou_scores, gradients))
    (masks, scores, gradients), (quick_masks, quick_scores, quick_gradients) = outcomes
    assert quick_masks.shape == (2, 2, 3 if multimask else 1, 64, 64)
    torch.testing.assert_close(quick_masks, masks, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(quick_scores, scores)
    for name, gradient in gradients.items():
        # The plain one computes all four masks: the unwanted ones' networks get zeros there, and nothing here.
        quick = quick_gradients.get(name, torch.zeros_like(gradient))
        torch.testing.assert_close(quick, gradient, atol=1e-5, rtol=1e-3, msg=lambda text, name=name: f"{name}: {text}")


def test_a_decoder_of_another_kind_is_not_replaced(tiny_sam):
    tiny_sam.mask_decoder.upscale_conv1 = torch.nn.ConvTranspose2d(32, 8, kernel_size=4, stride=2, padding=1)
    with pytest.raises(ValueError, match="upscale_conv1: kernel"):
        with_quick_decoder(tiny_sam)


def test_vit_b_has_the_parameters_that_the_paper_counts():
    with torch.device("meta"):
        table = parameter_table(SamModel(SamConfig()))["parameters"]
    assert table.to_dict() == {
        "vision_encoder": 89_670_912,
        "prompt_encoder": 6_476,
        "mask_decoder": 4_058_340,
        "total": 93_735_728,
    }


def test_freezing_leaves_gradients_to_the_named_parts_only(tiny_sam):
    trainable = freeze_all_but(tiny_sam, ["mask_decoder"])
    assert {id(p) for p in trainable} == {id(p) for p in tiny_sam.mask_decoder.parameters()}
    freeze_all_but(tiny_sam, ["mask_decoder", "prompt_encoder"])
    assert not tiny_sam.shared_image_embedding.positional_embedding.requires_grad
    assert tiny_sam.prompt_encoder.no_mask_embed.weight.requires_grad
    with pytest.raises(ConfigError, match="unknown part decoder: this model has vision_encoder, prompt_encoder"):
        freeze_all_but(tiny_sam, ["decoder"])


def test_pixels_are_scaled_as_the_model_saw_them_in_training(tiny_sam):
    image = np.full((50, 100, 3), 10, np.uint8)
    image[0, 0] = 110
    info = model_info(tiny_sam)
    imagenet = pixel_values(image, info)
    assert imagenet.shape == (1, 3, 128, 128)
    assert imagenet[0, 0, 40, 60].item() == pytest.approx((10 / 255 - 0.485) / 0.229, abs=1e-5)
    assert (imagenet[..., 64:, :] == 0).all(), "padded with zeros after scaling"
    tiny_sam.config.pixel_scaling = "minmax"
    minmax = pixel_values(image, model_info(tiny_sam))
    assert (minmax.min().item(), minmax.max().item()) == (0, 1)
    assert pixel_values(np.zeros((5, 5, 3), np.uint8), model_info(tiny_sam)).abs().max() == 0, "a flat image is no 0/0"


# --- folders: saved, reloaded, damaged ---


@pytest.fixture
def hub_folder(tiny_sam, tmp_path):
    """Random weights in the hub's layout."""
    tiny_sam.save_pretrained(tmp_path / "tiny-sam")
    return tmp_path / "tiny-sam"


def card_of(model: SamModel, folder: Path) -> dict:
    info = model_info(model)
    return {"base": info.name, "base_digest": info.base_digest, "base_path": str(folder)}


def test_a_folder_in_the_hubs_layout_loads_as_it_was_saved(hub_folder, tiny_sam):
    loaded = load_sam(hub_folder)
    assert state_digest(loaded) == state_digest(tiny_sam)
    assert model_info(loaded).name == "tiny-sam"
    assert (model_info(loaded).model_size, model_info(loaded).mask_size) == (128, 64)


def test_a_decoder_checkpoint_gives_the_tuned_model_back(hub_folder, tmp_path):
    model = load_sam(hub_folder)
    with torch.no_grad():
        model.mask_decoder.iou_token.weight += 1
    save_decoder(part_state(model, ["mask_decoder"]), tmp_path / "tuned", card_of(model, hub_folder))
    loaded = load_checkpoint(tmp_path / "tuned")
    assert state_digest(loaded) == state_digest(model)
    assert state_digest(loaded) != state_digest(load_sam(hub_folder))


def test_half_precision_halves_the_file_and_loads_as_float32(hub_folder, tmp_path):
    model = load_sam(hub_folder)
    state = part_state(model, ["mask_decoder"])
    for name, dtype in (("full", None), ("half", torch.float16)):
        save_decoder(state, tmp_path / name, card_of(model, hub_folder), dtype)
    sizes = [(tmp_path / name / "decoder.safetensors").stat().st_size for name in ("half", "full")]
    assert sizes[0] < 0.6 * sizes[1]
    loaded = load_checkpoint(tmp_path / "half")
    assert loaded.mask_decoder.iou_token.weight.dtype == torch.float32


def test_a_decoder_refuses_another_base(hub_folder, tmp_path, tiny_sam):
    model = load_sam(hub_folder)
    save_decoder(part_state(model, ["mask_decoder"]), tmp_path / "tuned", card_of(model, hub_folder))
    with torch.no_grad():
        tiny_sam.vision_encoder.pos_embed += 1
    tiny_sam.save_pretrained(tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"trained on tiny-sam with digest .*, this base has .*right base"):
        load_checkpoint(tmp_path / "tuned", tmp_path / "other")


def damage_cut(folder):
    path = folder / "decoder.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def damage_missing_weight(folder):
    path = folder / "decoder.safetensors"
    state = load_file(path)
    state.pop("mask_decoder.iou_token.weight")
    save_file(state, path)


def damage_shape(folder):
    path = folder / "decoder.safetensors"
    state = load_file(path)
    state["mask_decoder.iou_token.weight"] = torch.zeros(3, 5)
    save_file(state, path)


def damage_encoding(folder):
    (folder / "run_card.json").write_bytes(b"\xff\xfe{")


def damage_kind(folder):
    (folder / "run_card.json").write_text("[1]")


def damage_card(folder):
    (folder / "run_card.json").write_text("{")


def damage_no_base(folder):
    card = json.loads((folder / "run_card.json").read_text())
    card.pop("base")
    (folder / "run_card.json").write_text(json.dumps(card))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_cut, "missing or damaged"),
        (damage_missing_weight, "1 decoder weights missing"),
        (damage_shape, "0 decoder weights missing, 1 unknown or of another shape"),
        (damage_card, "not a decoder checkpoint"),
        (damage_encoding, "not a decoder checkpoint"),
        (damage_kind, "not a decoder checkpoint"),
        (damage_no_base, "not a decoder checkpoint"),
    ],
)
def test_a_damaged_decoder_is_named(hub_folder, tmp_path, damage, message):
    model = load_sam(hub_folder)
    folder = save_decoder(part_state(model, ["mask_decoder"]), tmp_path / "tuned", card_of(model, hub_folder))
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(folder)


def test_a_cut_off_model_folder_is_one_clear_error(hub_folder):
    path = hub_folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"tiny-sam: cannot be loaded as a SAM"):
        load_sam(hub_folder)


def test_a_folder_of_another_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match="describes a 'bert' model"):
        load_sam(tmp_path)


def test_a_decoder_in_place_of_a_base_is_told_apart(hub_folder, tmp_path):
    model = load_sam(hub_folder)
    folder = save_decoder(part_state(model, ["mask_decoder"]), tmp_path / "tuned", card_of(model, hub_folder))
    with pytest.raises(ConfigError, match="fine-tuned decoder, not a base model"):
        load_sam(folder)


def test_an_export_loads_with_plain_transformers(hub_folder, tmp_path):
    model = load_sam(hub_folder)
    with torch.no_grad():
        model.mask_decoder.iou_token.weight += 1
    folder = save_decoder(part_state(model, ["mask_decoder"]), tmp_path / "tuned", card_of(model, hub_folder))
    (folder / "README.md").write_text("# card\n")
    exported = export_model(folder, tmp_path / "exported")
    plain = SamModel.from_pretrained(exported)
    assert state_digest(plain) == state_digest(model)
    assert "SamModel.from_pretrained" in (exported / "README.md").read_text()
    processor = SamProcessor.from_pretrained(exported)
    pixels = processor(images=reference_image(), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(pixels, pixel_values(reference_image(), model_info(model)), atol=2e-2, rtol=0)


def test_an_export_never_overwrites(hub_folder, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty: export to a new folder"):
        export_model(hub_folder, tmp_path / "full")
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["mine.txt"]


@pytest.fixture(scope="module")
def cut():
    return load_sam("mobile-sam-last-stage", show_progress=False)


@pytest.mark.slow
def test_a_model_that_is_cut_answers_as_the_whole_one(mobile_sam, cut):
    image, info = reference_image(), model_info(mobile_sam)
    box = torch.from_numpy(info.transform(image.shape[:2]).to_model(BOX))[None, None]
    masks = []
    with torch.inference_mode():
        for model in (mobile_sam, cut):
            embedding = model.get_image_embeddings(pixel_values(image, info))
            masks.append(model(image_embeddings=embedding, input_boxes=box, multimask_output=False).pred_masks)
    assert embedding.shape == (1, 320, 64, 64)
    torch.testing.assert_close(masks[1], masks[0], atol=1e-4, rtol=1e-4)
    prompts = {"input_boxes": torch.cat([box, box / 2]), "multimask_output": False}
    with torch.inference_mode():
        at_once = cut(image_embeddings=embedding.expand(2, -1, -1, -1), **prompts).pred_masks
        repeated = cut(image_embeddings=embedding.repeat(2, 1, 1, 1), **prompts).pred_masks
    torch.testing.assert_close(at_once, repeated, atol=1e-4, rtol=1e-4)
    # Same weights, other embeddings: the two must not share a store.
    assert model_info(cut).base_digest == info.base_digest
    assert model_info(cut).name != info.name


@pytest.mark.slow
def test_the_last_stage_learns_and_the_rest_of_the_encoder_stays(cut, tmp_path):
    before = {name: weight.clone() for name, weight in cut.state_dict().items()}
    parameters = freeze_all_but(cut, ["mask_decoder", "last_stage"])
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    inputs = torch.randn(1, 320, 64, 64, generator=torch.Generator().manual_seed(0))
    box = torch.tensor([[[100.0, 100.0, 600.0, 500.0]]])
    cut(image_embeddings=inputs, input_boxes=box, multimask_output=False).pred_masks.square().mean().backward()
    optimizer.step()
    after = cut.eval().state_dict()
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"mask_decoder", "last_stage"}
    stages = {name.split(".")[2] for name in before if name.startswith("vision_encoder.layers.")}
    assert stages == {"0", "1", "2"}

    card = {"base": "mobile-sam-last-stage", "base_digest": model_info(cut).base_digest}
    folder = save_decoder(part_state(cut, ["mask_decoder", "last_stage"]), tmp_path / "run", card)
    loaded = load_checkpoint(folder)
    assert isinstance(loaded, PartiallyUnfrozenSam)
    assert state_digest(loaded) == state_digest(cut)

    # Exported it is in one piece: the usual embedding, the trained answer.
    whole = load_sam(export_model(folder, tmp_path / "exported"))
    assert type(whole) is SamModel
    pixels = pixel_values(reference_image(), model_info(cut))
    with torch.inference_mode():
        answers = [
            model(
                image_embeddings=model.get_image_embeddings(pixels), input_boxes=box, multimask_output=False
            ).pred_masks
            for model in (loaded, whole)
        ]
    torch.testing.assert_close(answers[1], answers[0], atol=1e-3, rtol=1e-3)
    assert state_digest(joined(loaded)) == state_digest(whole)


@pytest.mark.slow
def test_a_model_that_is_whole_has_no_last_stage_to_train(mobile_sam):
    with pytest.raises(ConfigError, match="unknown part last_stage: this model has vision_encoder, prompt_encoder"):
        freeze_all_but(mobile_sam, ["mask_decoder", "last_stage"])


@pytest.mark.slow
def test_a_light_model_survives_its_export(mobile_sam, tmp_path):
    exported = export_model("mobile-sam", tmp_path / "exported")
    loaded = load_sam(exported)
    assert state_digest(loaded) == state_digest(mobile_sam)
    assert "TinyViT" in (exported / "README.md").read_text()
