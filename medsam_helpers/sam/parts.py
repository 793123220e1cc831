"""The parts of a SAM: which train, which stay, and how large they are."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
import torch
from torch import nn
from transformers import SamModel

from medsam_helpers.errors import ConfigError

PARTS = ("vision_encoder", "last_stage", "prompt_encoder", "mask_decoder")
"""`last_stage` is there in models that are cut before it (`models.last_stage`); in others it belongs to the encoder."""


def parts_of(model: SamModel) -> list[str]:
    """The names of the parts that this model has."""
    return [part for part in PARTS if hasattr(model, part)]


def check_parts(model: SamModel, trainable: Iterable[str]) -> None:
    """Find out before anything is encoded whether the model has the parts that shall train.

    Raises:
        ConfigError: it has no part of that name.
    """
    there = parts_of(model)
    if unknown := set(trainable) - set(there):
        advice = "; a model that is cut before its last stage has it, such as mobile-sam-last-stage"
        raise ConfigError(
            f"unknown part {', '.join(sorted(unknown))}: this model has {', '.join(there)}"
            + advice * ("last_stage" in unknown)
        )


def freeze_all_but(model: SamModel, trainable: Iterable[str]) -> list[nn.Parameter]:
    """Stop every gradient except those of the named parts; returns the parameters that train.

    Raises:
        ConfigError: the model has no part of that name.
    """
    trainable = tuple(trainable)
    check_parts(model, trainable)
    model.requires_grad_(False)
    for part in trainable:
        model.get_submodule(part).requires_grad_(True)
    # The positional code is a fixed random projection; in the original it is a buffer.
    model.shared_image_embedding.requires_grad_(False)
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def changed_parts(model: SamModel, base: SamModel) -> list[str]:
    """The parts whose weights are not the base's; the decoder in any case, without which a checkpoint is none."""

    def differs(part: str) -> bool:
        weights, others = (of.get_submodule(part).state_dict() for of in (model, base))
        return any(not torch.equal(weight, others[name]) for name, weight in weights.items())

    return [part for part in parts_of(model) if part == "mask_decoder" or differs(part)]


def parameter_table(model: SamModel) -> pd.DataFrame:
    """One row a part and a total: parameters, how many of them train, share of the whole.

    The positional embedding, a fixed random matrix that image and prompts share, counts with the prompt encoder.
    """
    rows = []
    for part in parts_of(model):
        parameters = list(model.get_submodule(part).parameters())
        rows.append((part, sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)))
    table = pd.DataFrame(rows, columns=["part", "parameters", "trainable"]).set_index("part")
    table.loc["total"] = table.sum()
    table["share"] = table["parameters"] / table.loc["total", "parameters"]
    return table
