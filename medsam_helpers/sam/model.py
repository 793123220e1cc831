"""`Sam`: the `transformers.SamModel` that this package loads, and the parts of it that may train."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, SamConfig, SamModel
from transformers.models.sam.modeling_sam import SamImageSegmentationOutput, SamMaskDecoder, SamPositionalEmbedding

from medsam_helpers.errors import ConfigError

if TYPE_CHECKING:
    from medsam_helpers.sam.sam2 import Sam2
    from medsam_helpers.specialists.unet import PromptedUNet

Promptable: TypeAlias = Union[SamModel, "Sam2", "PromptedUNet"]
"""A model that takes an embedding and prompts: what `load_sam` returns, `fit` trains and a `Segmenter` asks."""


def is_light(config: PreTrainedConfig) -> bool:
    """Whether the configuration is that of a SAM with TinyViT as encoder."""
    return getattr(config, "encoder", "vit") == "tiny_vit"


class QuickMaskDecoder(SamMaskDecoder):
    """The mask decoder of `transformers` without transposed convolutions: same weights, same masks.

    Both enlarging layers have a kernel as large as their stride: each pixel becomes 2 x 2 without its neighbours. So
    both are matrix products on rows of channels, and only the finished mask is put in order on the 256 x 256 grid.
    On a CPU a training step takes two thirds of the time.
    """

    def forward(
        self,
        image_embeddings: Tensor,
        image_positional_embeddings: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
        multimask_output: bool,
        attention_similarity: Tensor | None = None,
        target_embedding: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As `SamMaskDecoder`: masks (B, N, M, h, w) and their IoU scores (B, N, M); N prompts, M is 1 or 3."""
        # The way back through fused attention is slow in bfloat16 on a CPU: without it a step takes two thirds.
        plainly = torch.is_grad_enabled() and torch.is_autocast_enabled("cpu")
        self.config._attn_implementation = "eager" if plainly else "sdpa"
        batch, prompts = sparse_prompt_embeddings.shape[:2]
        own_tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight]).expand(batch, prompts, -1, -1)
        # channels_last: the transformer sees pixels as rows of channels, and so they lie in memory.
        image = image_embeddings + dense_prompt_embeddings
        if prompts > 1:
            image = image.repeat_interleave(prompts, 0)
        position = image_positional_embeddings[:1]  # of the grid, the same for every image: adding it repeats it
        tokens, pixels = self.transformer(
            point_embeddings=torch.cat([own_tokens, sparse_prompt_embeddings], dim=2),
            image_embeddings=image.contiguous(memory_format=torch.channels_last),
            image_positional_embeddings=position.contiguous(memory_format=torch.channels_last),
            attention_similarity=attention_similarity,
            target_embedding=target_embedding,
        )
        wanted = range(1, self.num_mask_tokens) if multimask_output else range(1)
        # One row of 32 weights a mask, to be multiplied with each pixel's 32 channels.
        weights = torch.stack([self.output_hypernetworks_mlps[i](tokens[:, :, 1 + i]) for i in wanted], dim=2)
        masks = self._enlarge(pixels.flatten(0, 1)) @ weights.flatten(0, 1).transpose(1, 2)
        # Rows are counted by (y, x) of the embedding, then (dy, dx) of the first enlargement, then of the second.
        height, width = image.shape[2:]
        grid = masks.reshape(batch * prompts, height, width, 2, 2, 2, 2, -1).permute(0, 7, 1, 3, 5, 2, 4, 6)
        masks = grid.reshape(batch, prompts, -1, 4 * height, 4 * width)
        return masks, self.iou_prediction_head(tokens[:, :, 0])[:, :, wanted.start : wanted.stop]

    def _enlarge(self, pixels: Tensor) -> Tensor:
        """(B, P, C) pixels -> (B, 16 P, C / 8): each one's 2 x 2 children, and theirs."""
        children = nn.LayerNorm.forward(self.upscale_layer_norm, _children(pixels, self.upscale_conv1))
        return self.activation(_children(self.activation(children), self.upscale_conv2))


def _children(pixels: Tensor, layer: nn.ConvTranspose2d) -> Tensor:
    """(B, P, C) -> (B, 4 P, O): the transposed convolution as a matrix product; four rows in place of each."""
    weight = layer.weight.permute(2, 3, 1, 0).flatten(0, 2)  # (C, O, 2, 2) -> (4 O, C)
    assert layer.bias is not None
    children = nn.functional.linear(pixels, weight, layer.bias.repeat(4))
    return children.reshape(len(pixels), -1, layer.out_channels)


class FullPrecisionPositions(SamPositionalEmbedding):
    """The code of positions, under autocast too in float32: in bfloat16 a box moves by as much as 0.8 pixels."""

    def forward(self, *coordinates: Any) -> Tensor:
        """As `SamPositionalEmbedding`."""
        with torch.autocast(self.positional_embedding.device.type, enabled=False):
            return super().forward(*coordinates)


class Sam(SamModel):
    """A `SamModel` with the same weights, names and answers, and `QuickMaskDecoder`; TinyViT if `config.encoder` is."""

    vision_encoder: Any  # SAM's own, or a TinyViT
    automatic_head: nn.Module  # where the configuration asks for one

    def __init__(self, config: SamConfig) -> None:
        light, first = is_light(config), config
        if light:  # SamModel builds a ViT: the smallest there is, since TinyViT takes its place
            settings = config.to_dict()
            settings["vision_config"]["num_hidden_layers"] = 0
            first = SamConfig.from_dict(settings)
        super().__init__(first)
        self.config = config
        self.mask_decoder = QuickMaskDecoder(self.mask_decoder.config)
        self.shared_image_embedding = FullPrecisionPositions(config.vision_config)
        self.prompt_encoder.shared_embedding = FullPrecisionPositions(config.vision_config)
        self.prompt_encoder.shared_embedding.positional_embedding = self.shared_image_embedding.positional_embedding
        if getattr(config, "automatic_head", False):
            add_automatic_head(self)
        if light:
            from medsam_helpers.sam.tiny_vit import TinyViT

            self.vision_encoder = TinyViT(config.vision_config)  # type: ignore[arg-type]

    def forward(self, pixel_values: Tensor | None = None, **given: Any) -> SamImageSegmentationOutput:
        """As `SamModel`. Embeddings without a prompt: the automatic head's answer, else that to a box round all."""
        embeddings = given.get("image_embeddings")
        if given.get("input_masks") is not None:  # those of a sure answer would drown the click that corrects it
            given["input_masks"] = given["input_masks"].clamp(-32, 32)
        if embeddings is not None and not {"input_boxes", "input_points"} & given.keys():
            if hasattr(self, "automatic_head"):
                logits = self.automatic_head(embeddings)[:, None]
                scores = logits.new_full(logits.shape[:3], float("nan"))  # it has no opinion of itself
                return SamImageSegmentationOutput(iou_scores=scores, pred_masks=logits)
            side = self.prompt_encoder.input_image_size
            given["input_boxes"] = embeddings.new_tensor([0, 0, side, side]).expand(len(embeddings), 1, 4)
        return super().forward(pixel_values, **given)


def add_automatic_head(model: Promptable, seed: int = 0) -> None:
    """Give a model, in place, an untrained `automatic_head` where it has none; its other answers stay as they are.

    `ConfigError`: it is not the SAM that `load_sam` returns, but a plain one of transformers, a SAM 2, or a U-Net.
    """
    if not isinstance(model, Sam):
        raise ConfigError(f"a {type(model).__name__} cannot have an automatic head: take a SAM 1 from load_sam")
    from medsam_helpers.specialists.unet import AutomaticHead

    if not hasattr(model, "automatic_head"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model.automatic_head = AutomaticHead(model.prompt_encoder.hidden_size)
        model.config.automatic_head = True


PARTS = ("vision_encoder", "last_stage", "prompt_encoder", "mask_decoder", "automatic_head")
"""`last_stage` is a part of partially unfrozen models (`sam.unfrozen`); in others it belongs to the encoder."""
LORA = "vision_encoder:lora"  # what LoRA adds to the encoder, whose own weights stay
ENCODER = ("vision_encoder", "last_stage", LORA)


def part_of(name: str) -> str:
    """The part that a weight belongs to, by its full name."""
    return LORA if ".lora_" in name else name.partition(".")[0]


def check_parts(model: Promptable, trainable: Iterable[str]) -> None:
    """Raise `ConfigError` where the model lacks one of the parts that shall train."""
    there = {part_of(name) for name, _ in model.named_parameters()} & {*PARTS, LORA}
    if getattr(model.config, "embeds", "") != "pixels":
        there.discard("vision_encoder")  # it would get no gradient: what is stored comes after it
    if unknown := set(trainable) - there:
        advice = "; for a part of the encoder take `unfrozen(model, recipe)`" * bool(unknown & set(ENCODER))
        advice += "; for automatic_head `add_automatic_head(model)`" * ("automatic_head" in unknown)
        if model.config.model_type == "sam2":
            advice = "; the encoder of a SAM 2 stays as it is, and it takes no automatic head"
        told = f"{', '.join(sorted(unknown))} cannot train in this model, which has {', '.join(sorted(there))}"
        raise ConfigError(told + advice)


def freeze_all_but(model: Promptable, trainable: Collection[str]) -> list[nn.Parameter]:
    """The parameters of the named parts, which train, and no others; `ConfigError` where the model lacks a part."""
    check_parts(model, set(trainable) - {"vision_encoder"})  # that trains in any model that is given pixels
    for name, parameter in model.named_parameters():
        # The positional code is a fixed random projection; in the original it is a buffer. What is kept of an image
        # comes after the layers conv_s of SAM 2's decoder: trained, they would make other maps than those in the store.
        fixed = name.endswith("positional_embedding") or ".conv_s" in name
        parameter.requires_grad_(part_of(name) in trainable and not fixed)
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def changed_parts(model: Promptable, base: Promptable) -> list[str]:
    """The parts whose weights differ from the base's, and the decoder in any case: a checkpoint needs it."""
    weights, state = base.state_dict(), model.state_dict()
    changed = {part_of(name) for name in state if name not in weights or not state[name].equal(weights[name])}
    return [part for part in (*PARTS, LORA) if part == "mask_decoder" or part in changed]
