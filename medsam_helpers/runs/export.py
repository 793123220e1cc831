"""The whole model in `save_pretrained`'s layout, for plain `transformers` and for the hub."""

import json
import re
import shlex
import warnings
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, get_token
from safetensors.torch import load_file
from transformers import AutoConfig, PreTrainedModel
from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil
from transformers.models.sam.processing_sam import SamProcessor

from medsam_helpers.errors import CheckpointError, ConfigError, one_line
from medsam_helpers.files import find_checkpoint, give_ordinary_permissions, new_folder, one_writer
from medsam_helpers.sam.checkpoints import check_hub
from medsam_helpers.sam.loading import load_sam, model_info
from medsam_helpers.sam.model import LORA, is_light
from medsam_helpers.sam.tuned import CARD_FILE, DECODER_FILE, load_checkpoint, read_card
from medsam_helpers.sam.unfrozen import lora_targets

ORIGIN_FILE = "finetune_card.json"
"""The run card of an exported decoder. Not `run_card.json`, by which a folder that holds a decoder only is known."""
_PLAIN = "Load it with `transformers.SamModel.from_pretrained`; the processor lies beside it."
_SAM2 = "Load it with `transformers.Sam2Model.from_pretrained`. The processor is its base's, and needs torchvision."
_LIGHT = "Its encoder is TinyViT, which `transformers.SamModel` does not know: load it with `medsam_helpers.load_sam`."


@one_writer
def export_model(name_or_checkpoint: str | Path, output: Path) -> Path:
    """The folder, new or empty, with configuration, weights, processor and model card of a model or checkpoint.

    Raises:
        ConfigError: `output` holds something, or it is a specialist, which plain `transformers` does not know.
        CheckpointError: the model cannot be loaded.
    """
    source = Path(name_or_checkpoint)
    fine_tuned = (source / CARD_FILE).is_file()
    model = load_checkpoint(source) if fine_tuned else load_sam(name_or_checkpoint)
    if not isinstance(model, PreTrainedModel):
        raise ConfigError(f"{model.config.base_name} is no SAM, which transformers cannot load: keep {source} as it is")
    with new_folder(output) as folder:
        _save(model, folder)
        readme, text = source / "README.md", f"# {model.config.base_name}\n"
        if fine_tuned and readme.is_file():
            text = re.sub(r'(?<=Segmenter.load\(")[^"]*', output.name, readme.read_text(encoding="utf-8"))
        note = _LIGHT if is_light(model.config) else _SAM2 if model.config.model_type == "sam2" else _PLAIN
        (folder / "README.md").write_text(f"{text}\n## This folder\n\n{note}\n", encoding="utf-8")
        if fine_tuned:
            # The base is inside now: where it lay on this machine, others need not know.
            card = {key: value for key, value in read_card(source).items() if key not in ("base_path", "config")}
            (folder / ORIGIN_FILE).write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        give_ordinary_permissions(folder / "model.safetensors")
    return output


@one_writer
def export_adapter(checkpoint: str | Path, output: Path) -> Path:
    """The folder, with LoRA's matrices and the decoder in peft's own layout written to it.

    `PeftModel.from_pretrained(load_sam(BASE), output)` loads it. The checkpoint is of a run that trained with LoRA.

    Raises:
        ConfigError: nothing of it is LoRA's, or `output` holds something.
        CheckpointError: no checkpoint, or a damaged one.
    """
    from peft import LoraConfig, get_peft_model

    folder = find_checkpoint(checkpoint)
    card = read_card(folder)
    recipe, place = card.get("recipe", {}), card.get("base_path") or card["base"]
    if LORA not in recipe.get("trainable", ()):
        raise ConfigError(f"{checkpoint} holds no LoRA: export the whole model")
    load_checkpoint(folder)  # checks it
    base = load_sam(place)
    targets = [f"vision_encoder.{name}" for name in lora_targets(base.vision_encoder, recipe["lora_targets"])]
    others = [part for part in recipe["trainable"] if part != LORA]
    options = {"r": recipe["lora_rank"], "lora_alpha": recipe["lora_alpha"], "lora_dropout": recipe["lora_dropout"]}
    # peft asks transformers by a name that will be another.
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        model: Any = get_peft_model(base, LoraConfig(target_modules=targets, modules_to_save=others, **options))
    state = {}
    for name, weight in load_file(folder / DECODER_FILE).items():
        part, _, rest = name.partition(".")
        state["base_model.model." + (f"{part}.modules_to_save.default.{rest}" if part in others else name)] = weight
    model.load_state_dict(state, strict=False)
    with new_folder(output) as made:
        model.save_pretrained(made)
        give_ordinary_permissions(made / "adapter_model.safetensors")
        text = (folder / "README.md").read_text(encoding="utf-8") if (folder / "README.md").is_file() else ""
        note = f'`peft.PeftModel.from_pretrained(medsam_helpers.load_sam("{card["base"]}"), FOLDER)` loads it.'
        (made / "README.md").write_text(f"{text}\n## This folder\n\n{note}\n", encoding="utf-8")
    return output


def _save(model: Any, folder: Path) -> None:
    model.to(memory_format=torch.contiguous_format)
    model.save_pretrained(folder)
    config = AutoConfig.from_pretrained(folder)
    config.architectures = [f"{type(model).__name__}Model"]  # the class that others have
    config.save_pretrained(folder)
    if config.model_type == "sam" and not is_light(config):
        size = model_info(model).model_size
        pixels = SamImageProcessorPil(size={"longest_edge": size}, pad_size={"height": size, "width": size})
        SamProcessor(pixels).save_pretrained(folder)


def check_hub_access(repository: str) -> None:
    """Find out within seconds, before anything is written, what would stop `push_to_hub`.

    `ConfigError`: not OWNER/NAME, or no token; `CheckpointError`: the hub cannot be reached.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ConfigError(f"cannot push to {repository!r}: a repository is named OWNER/NAME, of letters, digits, _ . -")
    if not get_token():
        raise ConfigError(f"cannot push to {repository}: no token; set HF_TOKEN, or log in with `hf auth login`")
    check_hub(f"push to {repository}", "connect, or export without --push-to-hub")


def push_to_hub(folder: Path, repository: str) -> str:
    """The address of the repository that an exported folder was sent to; a new one is private.

    The token comes from `HF_TOKEN` or the hub's own login. `CheckpointError`: the hub said no, or cannot be reached.
    """
    hub = HfApi()
    try:
        address = hub.create_repo(repository, private=True, exist_ok=True)
        hub.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload fine-tuned SAM")
        return str(address)
    except Exception as error:  # the client's own, its HTTP library's, OSError, ValueError, RuntimeError
        # An upload's RuntimeError only names the file; what the hub said is in its cause.
        reason = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        again = shlex.join(["hf", "upload", repository, str(folder), "--private"])
        advice = f"The token must be allowed to write there. The export is whole: `{again}` sends it"
        raise CheckpointError(f"cannot push to {repository}: {one_line(reason, 400)}. {advice}") from error
