"""`load_sam`: from a name or a path to a model, and the pixels that it takes."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from huggingface_hub import try_to_load_from_cache
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, SamConfig
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from medsam_helpers.errors import CheckpointError, ConfigError, one_line, some
from medsam_helpers.geometry import ImageTransform
from medsam_helpers.sam import checkpoints as weights
from medsam_helpers.sam.model import Promptable, Sam, is_light

_TIED = "prompt_encoder.shared_embedding.positional_embedding"


@dataclass(frozen=True)
class ModelInfo:
    """Sizes, scaling and origin of a model."""

    name: str  # one of `checkpoints.NAMES`, or a folder's
    base_digest: str  # SHA-256 of the weights as published or saved
    model_size: int  # side of the square input, pixels
    mask_size: int  # side of the decoder's square output
    pixel_scaling: str  # "imagenet" (mean and deviation of ImageNet) or "minmax" (each image to [0, 1])
    embeds: str = "features"  # what it keeps of an image: another model's encoder may train, see `sam.unfrozen`
    squashed: bool = False  # SAM 2 scales each side of an image for itself, see `ImageTransform`

    def transform(self, original_hw: tuple[int, int]) -> ImageTransform:
        """The three coordinate spaces of an image of this size under this model."""
        return ImageTransform(original_hw, self.model_size, self.mask_size, self.squashed)


def load_sam(name_or_path: str | Path, show_progress: bool = True, memory: bool = False) -> Promptable:
    """A SAM in eval mode, on the CPU, in float32.

    Args:
        name_or_path: one of `checkpoints.NAMES`; an original file of `mobile-sam` or `lite-medsam`; or a folder that
            `save_pretrained` wrote.
        memory: of a SAM 2 the whole `Sam2VideoModel`, for `MemoryTracker`.
    Raises:
        ConfigError: no such name or path.
        CheckpointError: cannot be fetched, is damaged, or does not fit.
    """
    name = str(name_or_path)
    if name in weights.SPECIALISTS:
        from medsam_helpers.specialists.unet import PromptedUNet

        return PromptedUNet(name, load_sam("mobile-sam", show_progress) if name == "unet-pretrained" else None).eval()
    entry, path = weights.WEIGHTS.get(name), Path(name_or_path).expanduser()
    if isinstance(entry, weights.HubRepository):
        files = ("config.json", "model.safetensors")
        had = [try_to_load_from_cache(entry.repository, file, revision=entry.revision) for file in files]
        if not (cached := all(isinstance(file, str) for file in had)):
            advice = "connect, or pass a folder saved with save_pretrained, or use mobile-sam, which needs no hub"
            weights.check_hub(f"load {entry.repository}", advice)
        # What is here is not asked for: without a network that takes half a minute.
        where = {"revision": entry.revision, "local_files_only": cached}
        return _load_pretrained(entry.repository, entry.name, memory, **where)
    if entry is not None or path.is_file():
        from medsam_helpers.sam.light import load_light

        path = weights.fetch(entry, show_progress) if entry else path
        entry = entry or weights.identify(path)
        return _label(load_light(path, entry.name), entry.name, entry.sha256)
    if (path / "config.json").is_file():
        return _load_pretrained(path, path.name, memory)
    if (path / "decoder.safetensors").is_file():
        raise ConfigError(f"{path} holds a fine-tuned decoder, not a base model: pass it as the checkpoint")
    advice = "an original checkpoint file, or a folder saved with save_pretrained"
    raise ConfigError(f"no model {name!r}: use {', '.join(weights.WEIGHTS)}, {advice}")


def _load_pretrained(source: str | Path, name: str, memory: bool, **where: Any) -> Promptable:
    kind: Any = Sam
    try:
        config = AutoConfig.from_pretrained(source, **where)
        if memory and config.model_type == "sam2_video":
            from transformers import Sam2VideoModel

            kind = Sam2VideoModel
        elif config.model_type in ("sam2", "sam2_video"):
            from medsam_helpers.sam.sam2 import Sam2, image_config

            kind, config = Sam2, image_config(config)
        elif not isinstance(config, SamConfig):
            raise TypeError(f"config.json describes a {config.model_type!r} model, not 'sam' or 'sam2'")
        if is_light(config):
            model = Sam(config)
            model.vision_encoder.fuse()
            state = load_file(Path(source) / "model.safetensors")
            check_weights(state, source)
            # `save_pretrained` writes a shared tensor under one name only.
            model.load_state_dict({_TIED: state["shared_image_embedding.positional_embedding"]} | state, strict=True)
        else:
            options: Any = {"use_safetensors": True, "dtype": torch.float32, "output_loading_info": True}
            model, told = kind.from_pretrained(source, config=config, **where, **options)
            if missing := set(told["missing_keys"]) - {_TIED}:  # transformers would go on with random ones
                raise KeyError(f"weights are missing: {some(sorted(missing))}")
            if _TIED in told["missing_keys"]:  # a file may hold it under one name only
                model.prompt_encoder.shared_embedding.load_state_dict(model.shared_image_embedding.state_dict())
            check_weights(model.state_dict(), source)
    except CheckpointError:
        raise
    except Exception as error:  # a damaged folder makes transformers and safetensors raise all kinds
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise CheckpointError(f"{source}: cannot be loaded as a SAM ({reason})") from error
    return _label(model.eval(), name, state_digest(model))


def _label(model: Promptable, name: str, digest: str) -> Promptable:
    # In the configuration, so that `save_pretrained` keeps them.
    model.config.base_name, model.config.base_digest = name, digest
    return model


def check_weights(weights: Mapping[str, Tensor], place: str | Path) -> None:
    """Raise `CheckpointError` where one is not finite, or no floating number."""
    if bad := [name for name, value in weights.items() if not (value.is_floating_point() and value.isfinite().all())]:
        raise CheckpointError(f"{place}: weights are no finite numbers, in {some(bad)}: it is damaged, or diverged")


def state_digest(weights: Promptable | Mapping[str, Tensor]) -> str:
    """SHA-256 over names and values of tensors, or of all those of a model."""
    sha = hashlib.sha256()
    for name, tensor in sorted((weights if isinstance(weights, Mapping) else weights.state_dict()).items()):
        sha.update(name.encode())
        sha.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()


def model_info(model: Promptable) -> ModelInfo:
    """Sizes, scaling and origin of a model, from its configuration."""
    config: dict[str, Any] = model.config.to_dict()
    side, patch = (config["prompt_encoder_config"][name] for name in ("image_size", "patch_size"))
    return ModelInfo(
        name=config.get("base_name", "unnamed"),
        base_digest=config.get("base_digest") or state_digest(model),
        model_size=side,
        mask_size=4 * (side // patch),  # the decoder enlarges the embedding
        pixel_scaling=config.get("pixel_scaling", "imagenet"),
        embeds=config.get("embeds", "features"),
        squashed=config["model_type"] in ("sam2", "sam2_video"),
    )


def pixel_values(image: np.ndarray, info: ModelInfo, device: str | torch.device = "cpu") -> Tensor:
    """(1, 3, S, S) float32, the encoder's input: an (H, W, 3) uint8 RGB image resized, scaled, padded with zeros.

    It is scaled and padded, right and bottom, on the device, and travels there as uint8.
    """
    resized = torch.from_numpy(info.transform(image.shape[:2]).image_to_model(image).copy()).to(device)
    return scaled_pixels(resized, info.pixel_scaling, info.model_size)[None]


def scaled_pixels(resized: Tensor, scaling: str, size: int) -> Tensor:
    """(3, size, size) float32 of an image (h, w, 3) uint8 in the model space without its padding, see `ModelInfo`."""
    pixels = resized.float()
    if scaling == "minmax":
        low, high = pixels.aminmax()
        pixels = (pixels - low) / (high - low).clamp(min=1e-8)
    else:
        mean, deviation = torch.tensor([IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD], device=resized.device)
        pixels = (pixels / 255 - mean) / deviation
    return F.pad(pixels.permute(2, 0, 1), (0, size - pixels.shape[1], 0, size - pixels.shape[0]))
