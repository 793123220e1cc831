"""A SAM whose encoder trains too: all of it, its last stage, or what LoRA adds to it."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import SamModel
from transformers.models.sam.modeling_sam import SamImageSegmentationOutput

from medsam_helpers.errors import ConfigError, some
from medsam_helpers.sam.loading import state_digest
from medsam_helpers.sam.model import LORA, Promptable, Sam, check_parts, is_light


class UnfrozenSam(Sam):
    """A copy of a SAM whose encoder may train.

    Its "embedding" is what comes before all that trains, which never changes and can be stored: here the pixels. The
    encoder runs with each answer, so a step costs many times that of the decoder alone.
    """

    EMBEDS = "pixels"
    PLAIN_NAMES: ClassVar[dict[str, str]] = {".base_layer.": "."}
    """Parts of weights' names, and what the plain model calls them."""

    def __init__(self, whole: SamModel) -> None:
        super().__init__(copy.deepcopy(whole.config))
        if is_light(whole.config):
            self.vision_encoder.fuse()
        self.load_state_dict(whole.state_dict())
        self.config.embeds = self.EMBEDS

    def get_image_embeddings(self, pixel_values: Tensor, **_: Any) -> Tensor:  # type: ignore[override]
        """(B, 3, S, S) float pixels, as they came."""
        return pixel_values

    def features(self, inputs: Tensor) -> Tensor:
        """(B, 256, 64, 64) what the decoder sees, of what was stored."""
        return self.vision_encoder(inputs).last_hidden_state

    def forward(self, image_embeddings: Tensor, **others: Any) -> SamImageSegmentationOutput:  # type: ignore[override]
        """As `SamModel` from embeddings, which here are what `get_image_embeddings` gives."""
        # Several prompts on one image are one embedding, seen several times (`expand`): once is enough.
        distinct = image_embeddings[:1] if image_embeddings.stride(0) == 0 else image_embeddings
        features = self.features(distinct)
        return super().forward(image_embeddings=features.expand(len(image_embeddings), -1, -1, -1), **others)

    def joined(self) -> Sam:
        """A plain copy that embeds as usual, with LoRA's matrices added to the weights that they change."""
        merged = copy.deepcopy(self)
        for module in merged.modules():
            if callable(merge := getattr(module, "merge", None)):  # a layer with LoRA beside it
                merge()
        state = {name: weight for name, weight in merged.state_dict().items() if ".lora_" not in name}
        for own, plain in self.PLAIN_NAMES.items():
            state = {name.replace(own, plain): weight for name, weight in state.items()}
        whole = Sam(merged.config)
        if is_light(merged.config):
            whole.vision_encoder.fuse()
        whole.load_state_dict(state)
        del whole.config.embeds
        whole.config.base_digest = state_digest(whole)  # its embeddings are not those of the base
        return whole.eval()


class PartiallyUnfrozenSam(UnfrozenSam):
    """A light SAM whose encoder is frozen but for its last stage, which may train.

    What is stored is what the last stage is given. The stage and the neck behind it are the part `last_stage`. A step
    costs several times that of the decoder alone.
    """

    EMBEDS = "last-stage"
    PLAIN_NAMES: ClassVar = {"last_stage.0.": "vision_encoder.layers.3.", "last_stage.1.": "vision_encoder.neck."}

    def __init__(self, whole: SamModel) -> None:
        super().__init__(whole)
        encoder = self.vision_encoder
        self.last_stage = _as_saved(nn.Sequential(encoder.layers[-1], encoder.neck))
        encoder.layers, encoder.neck = encoder.layers[:-1], nn.Identity()

    def get_image_embeddings(self, pixel_values: Tensor, **_: Any) -> Tensor:  # type: ignore[override]
        """(B, 320, 64, 64) what the last stage is given."""
        return self.vision_encoder(pixel_values).last_hidden_state

    def features(self, inputs: Tensor) -> Tensor:
        """(B, 256, 64, 64) what the decoder sees, of what was stored."""
        return self.last_stage(inputs.contiguous(memory_format=torch.channels_last)).contiguous()


def unfrozen(model: Promptable, recipe: Mapping[str, Any], seed: int = 0) -> Promptable:
    """The model in which the recipe's parts can train: itself, or a copy whose embedding comes before all that changes.

    Args:
        recipe: `Recipe.as_dict()`, or what a card keeps of it; `trainable`, `augment` and LoRA's settings count.
        seed: of LoRA's first weights.
    Raises:
        ConfigError: parts that exclude each other, LoRA's targets are no linear layers of the encoder, or the model is
            a SAM 2, whose encoder stays as it is.
    """
    if model.config.model_type == "sam2":
        check_parts(model, recipe.get("trainable", ()))
        if wrong := [name for name in ("augment", "gradient_checkpointing") if recipe.get(name) is True]:
            raise ConfigError(f"{some(wrong)} needs an encoder that trains, and that of a SAM 2 does not: leave it off")
    wanted = {"last_stage", "vision_encoder", LORA} & set(recipe.get("trainable", ()))
    needed = wanted or recipe.get("augment") is True  # random changes of pixels need pixels
    if not needed or not isinstance(model, SamModel) or isinstance(model, UnfrozenSam):
        return model
    if len(wanted) > 1:
        raise ConfigError(f"trainable names {' and '.join(sorted(wanted))}: of the encoder take one")
    if wanted == {"last_stage"}:
        if not is_light(model.config):
            raise ConfigError(f"last_stage is a part of TinyViT only: for this encoder take vision_encoder or {LORA}")
        return PartiallyUnfrozenSam(model).eval()
    model = UnfrozenSam(model)
    if wanted == {LORA}:
        _add_lora(model, recipe, seed)
    elif wanted:
        _as_saved(model.vision_encoder)
    if recipe.get("gradient_checkpointing"):
        # As newer and older versions of transformers call it.
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    return model.eval()


def _as_saved(part: nn.Module) -> nn.Module:
    """The part, not channels_last: its weights are saved, and safetensors wants them as they are written."""
    return part.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload, no-any-return]


def _add_lora(model: UnfrozenSam, recipe: Mapping[str, Any], seed: int) -> None:
    """Two narrow matrices beside each target, whose product is 0 at first: the model answers as before."""
    from peft import LoraConfig, inject_adapter_in_model

    targets = lora_targets(model.vision_encoder, recipe["lora_targets"])
    settings = {"r": recipe["lora_rank"], "lora_alpha": recipe["lora_alpha"], "lora_dropout": recipe["lora_dropout"]}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(LoraConfig(target_modules=targets, **settings), model.vision_encoder)


def lora_targets(encoder: nn.Module, names: Sequence[str] = ()) -> list[str]:
    """The full names of the linear layers of a model's `vision_encoder` whose last word is one of these.

    By default these are what attention and TinyViT's MLPs are made of: `qkv`, `proj`, `fc1` and `fc2`. `ConfigError`: a
    name is that of no layer, or of one that is not linear.
    """
    layers = {name: module for name, module in encoder.named_modules() if name}
    linear = {name for name, module in layers.items() if isinstance(module, nn.Linear)}
    known = sorted({name.rpartition(".")[2] for name in linear})
    chosen = []
    for name in names or [name for name in ("qkv", "proj", "fc1", "fc2") if name in known]:
        found = [layer for layer in layers if layer.rpartition(".")[2] == name]
        if not found or (others := sorted(set(found) - linear)):
            told = f"is also {some(others)}, not linear" if found else "is no layer of this encoder"
            raise ConfigError(f"lora_targets: {name!r} {told}: use {', '.join(known)}")
        chosen += found
    return chosen
