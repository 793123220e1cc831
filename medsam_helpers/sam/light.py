"""MobileSAM and LiteMedSAM as a `transformers.SamModel`: TinyViT in the encoder's place, SAM's own prompt side."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import torch
from torch import Tensor
from transformers import SamConfig, SamModel

from medsam_helpers.errors import CheckpointError
from medsam_helpers.sam.tiny_vit import TinyViT

# (pattern in the original checkpoint, replacement in transformers), tried in order; several may apply to one key.
_RENAMES = [
    (r"^image_encoder\.", "vision_encoder."),
    (r"\.point_embeddings\.", ".point_embed."),
    (r"\.mask_downscaling\.0\.", ".mask_embed.conv1."),
    (r"\.mask_downscaling\.1\.", ".mask_embed.layer_norm1."),
    (r"\.mask_downscaling\.3\.", ".mask_embed.conv2."),
    (r"\.mask_downscaling\.4\.", ".mask_embed.layer_norm2."),
    (r"\.mask_downscaling\.6\.", ".mask_embed.conv3."),
    (r"(transformer\.layers\.\d+)\.norm(\d)\.", r"\1.layer_norm\2."),
    (r"\.norm_final_attn\.", ".layer_norm_final_attn."),
    (r"\.output_upscaling\.0\.", ".upscale_conv1."),
    (r"\.output_upscaling\.1\.", ".upscale_layer_norm."),
    (r"\.output_upscaling\.3\.", ".upscale_conv2."),
    (r"((?:output_hypernetworks_mlps\.\d+|iou_prediction_head))\.layers\.0\.", r"\1.proj_in."),
    (r"((?:output_hypernetworks_mlps\.\d+|iou_prediction_head))\.layers\.1\.", r"\1.layers.0."),
    (r"((?:output_hypernetworks_mlps\.\d+|iou_prediction_head))\.layers\.2\.", r"\1.proj_out."),
]
_GAUSSIAN = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
# The ImageNet classifier that MobileSAM's file still carries.
_UNUSED = ("image_encoder.head.", "image_encoder.norm_head.")


def light_config(image_size: int, pixel_scaling: str) -> SamConfig:
    """Configuration of a light SAM.

    Args:
        image_size: 1024 (MobileSAM) or 256 (LiteMedSAM); the embedding is 64 x 64 in both.
        pixel_scaling: "imagenet" or "minmax", see `models.pixel_values`.
    """
    return SamConfig(
        vision_config={"image_size": image_size, "patch_size": image_size // 64},
        prompt_encoder_config={"image_size": image_size, "patch_size": image_size // 64},
        # The original's LayerNorm default. With transformers' own 1e-6 the logits differ by 0.025, with this by 1e-4.
        mask_decoder_config={"layer_norm_eps": 1e-5},
        encoder="tiny_vit",
        pixel_scaling=pixel_scaling,
    )


def build_light(config: SamConfig) -> SamModel:
    """A light SAM with random weights, encoder not yet fused."""
    vision_config = config.vision_config
    # SamModel builds a ViT first: give it the smallest there is, then put TinyViT in its place.
    model = SamModel(_with_tiny_placeholder(config))
    model.config = config
    model.vision_encoder = TinyViT(vision_config)
    return model


def _with_tiny_placeholder(config: SamConfig) -> SamConfig:
    placeholder = SamConfig.from_dict(config.to_dict())
    placeholder.vision_config.num_hidden_layers = 0
    return placeholder


def rename_keys(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The original SAM layout's keys under `transformers`' names; tensors are shared, not copied."""
    renamed = {}
    for key, value in state.items():
        if key == _GAUSSIAN:
            renamed["shared_image_embedding.positional_embedding"] = value
            renamed["prompt_encoder.shared_embedding.positional_embedding"] = value
        elif not key.startswith(_UNUSED):
            for pattern, replacement in _RENAMES:
                key = re.sub(pattern, replacement, key)  # noqa: PLW2901
            renamed[key] = value
    return renamed


def load_light(path: Path, config: SamConfig) -> SamModel:
    """A light SAM from an original checkpoint file whose hash was checked; encoder fused, ready for inference.

    Raises:
        CheckpointError: the file is no plain state dict, or does not fit the network key by key.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        model = build_light(config)
        model.load_state_dict(rename_keys(state), strict=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, AttributeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{path}: not a checkpoint of this network ({reason})") from error
    model.vision_encoder.fuse().to(memory_format=torch.channels_last)
    return model.eval()
