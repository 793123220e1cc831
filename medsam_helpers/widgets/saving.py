"""What stays of a session with the box widget: the mask, the prompts, the Python that gives the mask again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from medsam_helpers.errors import PromptError
from medsam_helpers.files import atomic_write
from medsam_helpers.widgets.box_prompt import BoxPrompt
from medsam_helpers.widgets.canvas import HINT
from medsam_helpers.widgets.predictors import SegmenterPredictor


def save_mask(widget: BoxPrompt, path: Path) -> Path:
    """The path, to which the first model's mask was written: PNG, 0 and 255, of the image's size.

    Raises:
        PromptError: there is no mask yet.
    """
    if widget.mask is None:
        raise PromptError(f"there is no mask to save yet: {HINT}")
    with atomic_write(path) as temporary:
        Image.fromarray(widget.mask.astype(np.uint8) * 255).save(temporary, "PNG")
    return path


def save_prompts(widget: BoxPrompt, path: Path) -> Path:
    """The path, to which image name and size, boxes, points and each model's scores and Dice were written as JSON."""
    height, width = widget.image.shape[:2]
    answers = {
        name: {"scores": None if a.scores is None else [round(float(s), 4) for s in a.scores], "dice": a.dice}
        for name, a in widget.answers.items()
    }
    prompts = {"boxes": widget.boxes, "points": widget.points}
    content = {"image": widget.name, "width": width, "height": height, **prompts, "answers": answers}
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def python_call(widget: BoxPrompt, image_code: str = "image = ...  # (H, W, 3) uint8") -> str:
    """Python that gives the first model's mask again; `image_code` are the lines in it that make `image`.

    Raises:
        PromptError: there is no prompt yet.
    """
    boxes, points = widget.prompts()
    if not len(boxes) and not len(points):
        raise PromptError(f"there is no prompt to write down yet: {HINT}")
    predict = next(iter(widget.predictors.values()))
    if isinstance(predict, SegmenterPredictor):
        imports = "import numpy as np\n\nfrom medsam_helpers.sam.segmenter import Segmenter"
        return f"{imports}\n{image_code}\n{predict.code(boxes, points)}\n"
    name = getattr(predict, "__name__", "predict")
    arrays = f"np.array({boxes.tolist()}).reshape(-1, 4), np.array({points.tolist()}).reshape(-1, 3)"
    return f"import numpy as np\n\n{image_code}\nmasks = {name}(image, {arrays})\n"
