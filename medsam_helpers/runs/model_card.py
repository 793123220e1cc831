"""The model card beside every fine-tuned decoder, in the hub's format; its words stand in `model_card.md.jinja`."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Template

from medsam_helpers.evaluation.intervals import Interval
from medsam_helpers.files import atomic_write
from medsam_helpers.sam.checkpoints import SPECIALISTS

# Of each part of the encoder that may train too: its name in a title, and in a sentence.
_ENCODER = {
    "last_stage": ("last stage", "the encoder's last stage"),
    "vision_encoder": ("encoder", "the encoder"),
    "vision_encoder:lora": ("encoder (LoRA)", "the encoder (by LoRA)"),
}


def write_model_card(
    path: Path, card: Mapping[str, Any], checkpoint: str = "path/to/this/folder", limits: str = ""
) -> None:
    """Write the model card at `path`; every figure is that of `card`, a finished run's.

    `checkpoint` is the name or folder by which it is loaded, `limits` a section on intended use.
    """
    metrics = card["metrics"]
    gain = Interval(metrics["gain"], *(np.nan if end is None else end for end in metrics["gain_ci95"]))
    trained = _ENCODER.keys() & set(card["recipe"].get("trainable", ()))
    told = {
        "split": "val",  # of cards that do not say it
        **card,
        "data_name": escape(card["data"]["name"]),
        "encoder": _ENCODER[trained.pop()] if trained else None,
        "from_scratch": card["base"] in SPECIALISTS,
        "gain": gain.text("+.3f"),
        "checkpoint": checkpoint,
        "limits": limits,
    }
    words = Path(__file__).with_name("model_card.md.jinja").read_text(encoding="utf-8")
    with atomic_write(path) as temporary:
        temporary.write_text(Template(words, keep_trailing_newline=True).render(told), encoding="utf-8")
