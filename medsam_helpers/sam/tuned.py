"""Decoder checkpoints: a fine-tuned model is its base plus the few megabytes that changed."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from medsam_helpers.errors import CheckpointError
from medsam_helpers.files import atomic_write, find_checkpoint, write_text
from medsam_helpers.sam.loading import check_weights, load_sam, model_info, state_digest
from medsam_helpers.sam.model import PARTS, Promptable, add_automatic_head, part_of

DECODER_FILE, CARD_FILE, SEEN_FILE = "decoder.safetensors", "run_card.json", "seen_images.csv"


def part_state(model: Promptable, parts: Iterable[str]) -> dict[str, Tensor]:
    """Weights of the named parts under their full names; detached, on the CPU, copied."""
    parts, state = tuple(parts), model.state_dict()
    return {k: v.detach().cpu().contiguous().clone() for k, v in state.items() if part_of(k) in parts}


def save_decoder(state: dict[str, Tensor], folder: Path, card: Mapping[str, Any]) -> Path:
    """The folder, made where missing, with `decoder.safetensors` and `run_card.json` written.

    `state` is what `part_state` gives; `card` is JSON-able and holds the base's `base` (name) and `base_digest`.
    """
    with atomic_write(folder / DECODER_FILE) as temporary:
        # One entry: of several, safetensors writes now the one first, now the other.
        save_file(state, temporary, metadata={"base_digest": card["base_digest"]})
    write_text(folder / CARD_FILE, json.dumps(card, indent=2) + "\n")
    return folder


class _Card(BaseModel, extra="allow"):
    """What the package itself reads of a card."""

    base: str
    base_digest: str
    base_path: str | None = None
    precision: str = "auto"
    recipe: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    sizes: dict[str, int] = {}


def read_card(folder: Path) -> dict[str, Any]:
    """The run card of a decoder checkpoint; `CheckpointError`: no such folder or card, or not JSON."""
    path = Path(folder) / CARD_FILE
    try:
        return _Card.model_validate_json(path.read_bytes()).model_dump(exclude_unset=True)
    except (OSError, ValidationError) as error:
        told = f"not a decoder checkpoint ({path.name}: {type(error).__name__})"
        needed = f"It needs {DECODER_FILE} and {CARD_FILE}, as `medsam finetune --output` writes them"
        raise CheckpointError(f"{folder}: {told}. {needed}") from error


def base_of(folder: str | Path) -> str:
    """Name or path of the model that was there before any training, in several steps too."""
    card = read_card(find_checkpoint(folder))
    place = card.get("base_path") or card["base"]
    return base_of(place) if (find_checkpoint(place) / CARD_FILE).is_file() else place


def load_checkpoint(folder: str | Path, base: Promptable | str | Path | None = None) -> Promptable:
    """The base model with the checkpoint's weights in it, in eval mode.

    Args:
        folder: written by `save_decoder`, or the name of a released one in `checkpoints/`.
        base: what `base_of` names, or where it lies. A model is changed in place, but for a checkpoint whose encoder
            was trained too: that is a new one, with LoRA's matrices added up, and a base of further ones.
    Raises:
        CheckpointError: damaged, a weight is not finite, or the base is not the one that it was trained on.
    """
    from medsam_helpers.sam.unfrozen import UnfrozenSam, unfrozen

    folder = find_checkpoint(folder)
    card = read_card(folder)
    place = card.get("base_path") or card["base"]
    if (find_checkpoint(place) / CARD_FILE).is_file():
        base = load_checkpoint(place, base)
    elif base is None or isinstance(base, str | Path):
        base = load_sam(base or place)
    if (found := model_info(base).base_digest) != card["base_digest"]:
        was = f"trained on {card['base']} with digest {card['base_digest'][:12]}..."
        raise CheckpointError(f"{folder}: {was}, this base has {found[:12]}...: pass the right base")
    try:
        with safe_open(folder / DECODER_FILE, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
            noted = (file.metadata() or {}).get("base_digest", found)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder / DECODER_FILE}: missing or damaged ({error})") from error
    check_weights(state, folder / DECODER_FILE)
    try:
        model = unfrozen(base, card.get("recipe", {}) | {"augment": False})
    except (KeyError, TypeError, ValueError) as error:
        told = f"{CARD_FILE} does not say how the encoder was trained ({type(error).__name__}: {error})"
        raise CheckpointError(f"{folder}: {told}: it is damaged") from error
    if noted != found:
        raise CheckpointError(f"{folder}: {CARD_FILE} is of another decoder, whose base has digest {noted[:12]}...")
    if any(name.startswith("automatic_head.") for name in state):
        add_automatic_head(model)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    missing = sum(name.startswith("mask_decoder.") and name not in state for name in shapes)
    unknown = sum(not name.startswith(PARTS) or shapes.get(name) != state[name].shape for name in state)
    if missing or unknown:
        wrong = f"{missing} decoder weights missing, {unknown} unknown or of another shape"
        raise CheckpointError(f"{folder / DECODER_FILE}: {wrong}; it was trained on {card['base']}")
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()}, strict=False)
    prompts = set(card.get("recipe", {}).get("prompts", ["box"]))
    if prompts != {"none"} or card.get("start"):  # else the decoder is the base's
        model.config.boxes_only = not {"point", "several", "none"} & prompts
    if model is base or not isinstance(model, UnfrozenSam):
        return model.eval()
    whole = model.joined()
    # Its name as a base. The digest is that of the file: the sums' last bits are not the same on every machine.
    whole.config.base_name, whole.config.base_digest = folder.resolve().name, f"{state_digest(state)}-{found[:12]}"
    return whole
