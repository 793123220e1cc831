"""The model card that lies beside every fine-tuned decoder, in the hub's format; the text stands in the template."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from medsam_helpers.evaluation.intervals import Interval
from medsam_helpers.files import write_text
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
    source = Path(__file__).with_name("model_card.md.jinja").read_text(encoding="utf-8")
    options: Any = {"undefined": jinja2.StrictUndefined, "keep_trailing_newline": True, "trim_blocks": True}
    metrics, trainable = card["metrics"], card["recipe"].get("trainable", ())
    known = {"start": None, "split": "val", **card, "metrics": {"seen_before": 0, **metrics}}
    text = jinja2.Template(source, **options).render(
        known,
        name=escape(card["data"]["name"]),
        from_scratch=card["base"] in SPECIALISTS,
        encoder=next((told for part, told in _ENCODER.items() if part in trainable), None),
        gain=Interval(metrics["gain"], *(np.nan if end is None else end for end in metrics["gain_ci95"])).text("+.3f"),
        tta=card.get("config", {}).get("tta", False),
        checkpoint=checkpoint,
        limits=limits,
    )
    write_text(path, text)
