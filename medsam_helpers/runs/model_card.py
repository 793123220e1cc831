"""The model card that lies beside every fine-tuned decoder, in the hub's format."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

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
    data, metrics, sizes = card["data"], card["metrics"], card["sizes"]
    gain = Interval(metrics["gain"], *(np.nan if end is None else end for end in metrics["gain_ci95"]))
    split = card.get("split", "val")
    scored = f"scored once on {sizes['val']}" if split == "val" else "and scored on these, which flatters it"
    if seen := metrics.get("seen_before"):
        scored += f", {seen} of which the decoder that it began with had seen"
    phantom = ""
    if "phantom" in data["name"]:
        phantom = "**The images are phantoms, drawn by a program: these figures say nothing clinical.**\n\n"
    from_scratch = card["base"] in SPECIALISTS
    name = f"{card['base']}, trained on" if from_scratch else f"{card['base']}, decoder fine-tuned on"
    part, before, what = ("", "untrained", "network") if from_scratch else ("mask decoder of ", "zero-shot", "decoder")
    if more := _ENCODER.keys() & set(card["recipe"].get("trainable", ())):
        short, long = _ENCODER[more.pop()]
        part, what = f"mask decoder and {long} of ", "model"
        name = name.replace("decoder fine-tuned", f"decoder and {short} fine-tuned")
    began = f", begun with the decoder `{card['start']['name']}`" if card.get("start") else ""
    with_tta = card.get("config", {}).get("tta", False)
    tta, option = (", with test-time augmentation", ", tta=True") if with_tta else ("", "")
    text = f"""---
license: apache-2.0
library_name: transformers
pipeline_tag: mask-generation
tags: [segment-anything, medical-imaging, medsam]
---

# {name} {escape(data["name"])}

The {part}`{card["base"]}` after `{card["recipe"]["name"]}` ({card["recipe"]["loss"]}, learning rate
{card["recipe"]["lr"]:g}, epoch {card["best_epoch"]} of {card["recipe"]["epochs"]}, {card["precision"]}{began}),
trained on {sizes["train"]} images, chosen on {sizes["dev"]}, {scored}.

{phantom}| mean Dice on {sizes[split]} images, prompt `{metrics["prompt"]}` | |
|---|---|
| fill the box | {metrics["box_dice"]:.3f} |
| fill its ellipse | {metrics["ellipse_dice"]:.3f} |
| {before} | {metrics["zero_shot_dice"]:.3f} |
| this {what}{tta} | {metrics["tuned_dice"]:.3f} |
| paired gain over {before}, 95 % interval | {gain.text("+.3f")} |

## Use

```python
from medsam_helpers.sam.segmenter import Segmenter

masks = Segmenter.load("{checkpoint}"{option}).predict(image, boxes=[x0, y0, x1, y1]).best()
```

Boxes are pixels of the original image, half-open. **Not for clinical use**: research and teaching only. A box that
misses the lesion still gives a mask, and the model's own IoU score is not calibrated after tuning. It was trained with
boxes only: a click alone may be answered with nothing, or with the whole image.
{limits}
## Data

{escape(data["name"])}: {data["citation"].rstrip(".")}. Terms: {data["licence"].rstrip(".")}. Content digest
`{card["data_digest"][:16]}`.

Made by: `{card["command"].replace("`", "'")}`
"""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
