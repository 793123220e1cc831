"""The parts of a SAM, and which of them train."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from torch import nn

from medsam_helpers.errors import ConfigError
from medsam_helpers.sam.model import Promptable

PARTS = ("vision_encoder", "last_stage", "prompt_encoder", "mask_decoder", "automatic_head")
"""`last_stage` is a part of partially unfrozen models (`sam.unfrozen`); in others it belongs to the encoder."""
LORA = "vision_encoder:lora"
"""What LoRA adds to the encoder, whose own weights stay."""
ENCODER = ("vision_encoder", "last_stage", LORA)


def part_of(name: str) -> str:
    """The part that a weight belongs to, by its full name."""
    return LORA if ".lora_" in name else name.partition(".")[0]


def check_parts(model: Promptable, trainable: Iterable[str]) -> None:
    """Raise `ConfigError` where the model lacks one of the parts that shall train."""
    there = {part_of(name) for name, _ in model.named_parameters()} - {"shared_image_embedding"}
    if getattr(model.config, "embeds", "") != "pixels":
        there.discard("vision_encoder")  # it would get no gradient: what is stored comes after it
    if unknown := set(trainable) - there:
        advice = "; for a part of the encoder take `unfrozen(model, recipe)`" * bool(unknown & set(ENCODER))
        advice += "; for automatic_head `add_automatic_head(model)`" * ("automatic_head" in unknown)
        told = f"{', '.join(sorted(unknown))} cannot train in this model, which has {', '.join(sorted(there))}"
        raise ConfigError(told + advice)


def freeze_all_but(model: Promptable, trainable: Collection[str]) -> list[nn.Parameter]:
    """The parameters of the named parts, which train; every other one gets no gradient from now on.

    Raises:
        ConfigError: the model has no part of that name.
    """
    check_parts(model, set(trainable) - {"vision_encoder"})  # that trains in any model that is given pixels
    for name, parameter in model.named_parameters():
        # The positional code is a fixed random projection; in the original it is a buffer.
        parameter.requires_grad_(part_of(name) in trainable and not name.endswith("positional_embedding"))
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def changed_parts(model: Promptable, base: Promptable) -> list[str]:
    """The parts whose weights differ from the base's, and the decoder in any case: a checkpoint needs it."""
    weights = base.state_dict()
    state = model.state_dict()
    changed = {part_of(name) for name in state if name not in weights or not state[name].equal(weights[name])}
    return [part for part in (*PARTS, LORA) if part == "mask_decoder" or part in changed]
