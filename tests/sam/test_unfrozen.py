"""Encoders that train: LoRA, all of it, the last stage; before training each answers as the plain model."""

import copy

import pytest
import torch
from helpers import draw_discs, embedded, make_tiny_sam
from peft import PeftModel
from reference_image import BOX, reference_image

from medsam_helpers.errors import CheckpointError, ConfigError
from medsam_helpers.runs.export import export_adapter, export_model
from medsam_helpers.sam.embeddings import EmbeddingStore
from medsam_helpers.sam.light import light_config
from medsam_helpers.sam.loading import load_sam, model_info, pixel_values, state_digest
from medsam_helpers.sam.model import LORA, Sam, changed_parts, freeze_all_but, part_of
from medsam_helpers.sam.tuned import load_checkpoint, part_state, save_decoder
from medsam_helpers.sam.unfrozen import lora_targets, unfrozen
from medsam_helpers.training.loop import fit
from medsam_helpers.training.recipes import get_recipe

QUICK = {"epochs": 1, "batch": 4, "precision": "fp32", "warmup_steps": 0, "lora_rank": 4, "augment": False}
RECIPES = {name: get_recipe(name).but(**QUICK) for name in ("lora", "whole-encoder")}
TINY_LAYERS = ["layers.0.attn.qkv", "layers.1.attn.qkv", "layers.0.attn.proj", "layers.1.attn.proj"]


class Rising:
    """A metric by which the last epoch is the best."""

    version, calls = "1", 0

    def __call__(self, mask, reference):
        self.calls += 1
        return self.calls


def answer(model, pixels):
    """Logits for two boxes, from pixels."""
    boxes = torch.tensor([[[8.0, 8, 90, 60]], [[30, 20, 100, 100]]])
    with torch.inference_mode():
        seen = model.get_image_embeddings(pixels).expand(2, -1, -1, -1)
        return model(image_embeddings=seen, input_boxes=boxes, multimask_output=False).pred_masks


@pytest.fixture
def pixels():
    return torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", RECIPES)
def test_two_steps_change_what_shall_train_and_merged_it_gives_the_same_masks(name, tmp_path, pixels):
    base, recipe, cases = make_tiny_sam(), RECIPES[name].but(lr=1e-2, metric=Rising()), draw_discs(10)
    model = unfrozen(base, recipe.as_dict())
    assert torch.equal(answer(model, pixels), answer(model.joined(), pixels)), "LoRA begins with a product of 0"
    untouched, store = copy.deepcopy(model), embedded(model, cases, tmp_path / "store").store
    assert store[cases[0].image_digest].shape == (3, 128, 128)
    fit(model, cases[:8], cases[8:], recipe, store, tmp_path / "run", show_progress=False)  # two steps
    expected = {"lora": ["mask_decoder", LORA], "whole-encoder": ["vision_encoder", "mask_decoder"]}
    assert changed_parts(model, untouched) == expected[name]
    before = untouched.state_dict()
    trained = [key for key, weight in model.state_dict().items() if not weight.equal(before[key])]
    adapters = {key for key in before if ".lora_" in key}
    assert len(adapters) == (2 * len(TINY_LAYERS) if name == "lora" else 0)
    assert adapters <= set(trained)
    if name == "whole-encoder":
        encoder = {key for key in before if part_of(key) == "vision_encoder"}
        assert encoder <= set(trained)
    joined = model.joined()
    assert type(joined) is Sam
    torch.testing.assert_close(answer(joined, pixels), answer(model, pixels), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(answer(joined, pixels), answer(base, pixels), atol=1e-3)
    # Neither the pixels nor the new encoder's embeddings are ever taken for the base's.
    infos = [model_info(each) for each in (base, model, joined)]
    assert len({EmbeddingStore.for_model(info, "fp32", tmp_path).folder for info in infos}) == 3


@pytest.mark.parametrize("light", [False, True], ids=["ViT", "TinyViT"])
def test_the_adapter_is_a_checkpoint_and_peft_reads_it_too(tmp_path, light):
    base = Sam(light_config("lite-medsam")).eval() if light else make_tiny_sam()
    pixels = torch.randn(1, 3, *[model_info(base).model_size] * 2, generator=torch.Generator().manual_seed(0))
    if light:
        base.vision_encoder.fuse().to(memory_format=torch.contiguous_format)
    base.save_pretrained(tmp_path / "base")
    base = load_sam(tmp_path / "base")
    recipe = RECIPES["lora"]
    model = unfrozen(base, recipe.as_dict())
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in freeze_all_but(model, recipe.trainable):
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=rng))
    info = model_info(base)
    card = {"base": info.name, "base_digest": info.base_digest, "base_path": str(tmp_path / "base")}
    folder = save_decoder(part_state(model, recipe.trainable), tmp_path / "run", card | {"recipe": recipe.as_dict()})
    loaded = load_checkpoint(folder)
    torch.testing.assert_close(answer(loaded, pixels), answer(model, pixels), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(model.features(pixels), torch.no_grad()(model.features)(pixels), atol=1e-4, rtol=1e-4)
    exported = load_sam(export_model(folder, tmp_path / "whole"))
    assert state_digest(exported) == state_digest(loaded)
    codes = (exported.shared_image_embedding, exported.prompt_encoder.shared_embedding)
    assert codes[0].positional_embedding is codes[1].positional_embedding, "still tied"
    of_peft = PeftModel.from_pretrained(load_sam(tmp_path / "base"), export_adapter(folder, tmp_path / "peft"))
    torch.testing.assert_close(answer(of_peft.base_model.model, pixels), answer(model, pixels), atol=1e-4, rtol=1e-4)
    for damage in ({"trainable": recipe.trainable}, recipe.as_dict() | {"lora_rank": "many"}):
        damaged = save_decoder(part_state(model, recipe.trainable), tmp_path / "damaged", card | {"recipe": damage})
        with pytest.raises(CheckpointError, match="does not say how the encoder was trained"):
            load_checkpoint(damaged)
    with pytest.raises(ConfigError, match="no LoRA"):
        export_adapter(save_decoder(part_state(base, ["mask_decoder"]), tmp_path / "decoder", card), tmp_path / "none")


def test_targets_are_linear_layers_and_parts_of_the_encoder_exclude_each_other(tiny_sam):
    assert lora_targets(tiny_sam.vision_encoder) == TINY_LAYERS
    assert len(lora_targets(tiny_sam.vision_encoder, ["lin1"])) == 2
    for wrong, words in (("attn", "is also .*attn, not linear"), ("fc1", "'fc1' is no layer .*: use lin1, lin2, proj")):
        with pytest.raises(ConfigError, match=f"lora_targets: .*{words}"):
            lora_targets(tiny_sam.vision_encoder, [wrong])
    with pytest.raises(ConfigError, match="last_stage and vision_encoder: of the encoder take one"):
        unfrozen(tiny_sam, {"trainable": ["last_stage", "vision_encoder"]})
    assert unfrozen(tiny_sam, {"trainable": ["mask_decoder"]}) is tiny_sam


def test_checkpointing_gives_the_same_gradients(pixels):
    gradients, box = [], torch.tensor([[[8.0, 8, 90, 60]]])
    for again in (False, True):
        model = unfrozen(make_tiny_sam(), RECIPES["whole-encoder"].as_dict() | {"gradient_checkpointing": again})
        assert model.vision_encoder.gradient_checkpointing is again
        weights = freeze_all_but(model, ["vision_encoder"])
        model.train()(image_embeddings=pixels, input_boxes=box).pred_masks.mean().backward()
        gradients.append([weight.grad for weight in weights if weight.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 20
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.fixture(scope="module")
def partly():
    return unfrozen(load_sam("mobile-sam", show_progress=False), {"trainable": ["last_stage"]})


@pytest.mark.slow
def test_a_partially_unfrozen_model_answers_as_the_whole_one(mobile_sam, partly):
    image, info = reference_image(), model_info(mobile_sam)
    box = torch.from_numpy(info.transform(image.shape[:2]).to_model(BOX))[None, None]
    with torch.inference_mode():
        whole = mobile_sam.get_image_embeddings(pixel_values(image, info))
        embedding = partly.get_image_embeddings(pixel_values(image, info))
        expected = mobile_sam(image_embeddings=whole, input_boxes=box, multimask_output=False).pred_masks
        prompts = {"input_boxes": torch.cat([box, box / 2]), "multimask_output": False}
        at_once = partly(image_embeddings=embedding.expand(2, -1, -1, -1), **prompts).pred_masks
        repeated = partly(image_embeddings=embedding.repeat(2, 1, 1, 1), **prompts).pred_masks
    assert embedding.shape == (1, 320, 64, 64)
    torch.testing.assert_close(at_once[:1], expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(at_once, repeated, atol=1e-4, rtol=1e-4)
    # Same weights, other embeddings: the two must not share a store.
    assert model_info(partly).base_digest == info.base_digest
    assert model_info(partly).embeds != info.embeds


@pytest.mark.slow
def test_the_last_stage_learns_and_the_rest_of_the_encoder_stays(partly, tmp_path):
    before = {name: weight.clone() for name, weight in partly.state_dict().items()}
    optimizer = torch.optim.AdamW(freeze_all_but(partly, ["mask_decoder", "last_stage"]), lr=1e-3)
    inputs = torch.randn(1, 320, 64, 64, generator=torch.Generator().manual_seed(0))
    box = torch.tensor([[[100.0, 100.0, 600.0, 500.0]]])
    partly(image_embeddings=inputs, input_boxes=box, multimask_output=False).pred_masks.square().mean().backward()
    optimizer.step()
    after = partly.eval().state_dict()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"mask_decoder", "last_stage"}
    card = {"base": "mobile-sam", "base_digest": model_info(partly).base_digest, "recipe": {"trainable": [*changed]}}
    folder = save_decoder(part_state(partly, changed), tmp_path / "run", card)
    loaded = load_checkpoint(folder)  # in one piece: the usual embedding, the trained answer
    whole = load_sam(export_model(folder, tmp_path / "exported"))
    assert type(whole) is Sam
    pixels = pixel_values(reference_image(), model_info(partly))
    with torch.inference_mode():
        seen = [(model, model.get_image_embeddings(pixels)) for model in (partly, whole)]
        given = {"input_boxes": box, "multimask_output": False}
        one, other = (model(image_embeddings=embedding, **given).pred_masks for model, embedding in seen)
    torch.testing.assert_close(other, one, atol=1e-3, rtol=1e-3)
    assert state_digest(loaded) == state_digest(whole)
