"""The original checkpoints of MobileSAM and LiteMedSAM as a `Sam`: TinyViT as encoder, SAM's own prompt side."""

import pickle
import re
import tomllib
from pathlib import Path

import torch
from torch import Tensor
from transformers import SamConfig

from medsam_helpers.errors import CheckpointError, one_line
from medsam_helpers.sam.model import Sam

_RENAMES: list[list[str]] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))["renames"]
_GAUSSIAN = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
_UNUSED = ("image_encoder.head.", "image_encoder.norm_head.")  # an ImageNet classifier in MobileSAM's file


def light_config(name: str) -> SamConfig:
    """Configuration of `mobile-sam` (input 1024) or `lite-medsam` (256); the embedding is 64 x 64 in both."""
    image_size, pixel_scaling = {"mobile-sam": (1024, "imagenet"), "lite-medsam": (256, "minmax")}[name]
    sides = {"image_size": image_size, "patch_size": image_size // 64}
    config = SamConfig(
        vision_config=sides,
        prompt_encoder_config=sides,
        # The original's LayerNorm default. With transformers' own 1e-6 the logits differ by 0.025, with this by 1e-4.
        mask_decoder_config={"layer_norm_eps": 1e-5},
    )
    config.encoder, config.pixel_scaling = "tiny_vit", pixel_scaling
    config.boxes_only = name == "lite-medsam"
    return config


def _rename_keys(state: dict[str, Tensor]) -> dict[str, Tensor]:
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


def load_light(path: Path, name: str) -> Sam:
    """A light SAM in eval mode, encoder fused, from an original file; `CheckpointError`: it does not fit key by key."""
    model = Sam(light_config(name))
    try:
        model.load_state_dict(_rename_keys(torch.load(path, map_location="cpu", weights_only=True)), strict=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, AttributeError, ValueError) as error:
        raise CheckpointError(f"{path}: not a checkpoint of this network ({one_line(error, 150)})") from error
    model.vision_encoder.fuse()
    return model.eval()
