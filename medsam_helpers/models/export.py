"""The whole model in `save_pretrained`'s layout, for plain `transformers` and for the hub."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from requests import RequestException
from transformers import SamModel
from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil
from transformers.models.sam.processing_sam import SamProcessor

from medsam_helpers.errors import CheckpointError, ConfigError
from medsam_helpers.models.decoder import CARD_FILE, load_checkpoint
from medsam_helpers.models.loading import load_sam

_PLAIN = "Load it with `transformers.SamModel.from_pretrained`; the processor lies beside it."
_LIGHT = (
    "Its encoder is TinyViT, which `transformers.SamModel` does not know: load it with "
    "`medsam_helpers.models.load_sam`. A base from the hub exports for plain `SamModel.from_pretrained`."
)


def export_model(name_or_checkpoint: str | Path, output: Path) -> Path:
    """Write configuration, weights, processor and model card to a new folder.

    Args:
        name_or_checkpoint: a decoder checkpoint's folder, or a model's name or path.
        output: must not exist, or be empty.
    Raises:
        ConfigError: `output` holds something.
        CheckpointError: the model cannot be loaded.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(f"{output} is not empty: export to a new folder")
    source = Path(name_or_checkpoint)
    fine_tuned = (source / CARD_FILE).is_file()
    model = load_checkpoint(source) if fine_tuned else load_sam(name_or_checkpoint)
    output.parent.mkdir(parents=True, exist_ok=True)
    # Whole or not there: written beside its place, then renamed.
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as temporary:
        folder = Path(temporary) / output.name
        _save(model, folder)
        text = (source / "README.md").read_text() if fine_tuned else f"# {model.config.base_name}\n"
        note = _LIGHT if _is_light(model) else _PLAIN
        (folder / "README.md").write_text(f"{text}\n## This folder\n\n{note}\n")
        if fine_tuned:
            shutil.copy(source / CARD_FILE, folder)
        if output.exists():
            output.rmdir()
        folder.rename(output)
    return output


def _is_light(model: SamModel) -> bool:
    return getattr(model.config, "encoder", "vit") == "tiny_vit"


def _save(model: SamModel, folder: Path) -> None:
    size = model.config.vision_config.image_size
    model.to(memory_format=torch.contiguous_format).save_pretrained(folder)
    if not _is_light(model):
        sides = {"height": size, "width": size}
        SamProcessor(SamImageProcessorPil(size={"longest_edge": size}, pad_size=sides)).save_pretrained(folder)


def push_to_hub(folder: Path, repository: str) -> str:
    """Send an exported folder to the hub, private; gives its address.

    The token comes from `HF_TOKEN` or the hub's own login, never from an argument.

    Raises:
        CheckpointError: the hub said no, or cannot be reached.
    """
    hub = HfApi()
    try:
        address = hub.create_repo(repository, private=True, exist_ok=True)
        hub.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload fine-tuned SAM")
    except (HfHubHTTPError, RequestException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"cannot push to {repository}: {reason}; is HF_TOKEN set, and may it write?") from error
    return str(address)
