"""What stays of a session with the box widget: the mask, the prompts, the Python that gives the mask again."""

import json
from pathlib import Path

from medsam_helpers.data.reading import write_mask
from medsam_helpers.errors import PromptError
from medsam_helpers.files import write_text
from medsam_helpers.widgets.box_prompt import BoxPrompt
from medsam_helpers.widgets.canvas import HINT
from medsam_helpers.widgets.predictors import SegmenterPredictor


def save_mask(widget: BoxPrompt, path: Path) -> None:
    """Writes the first model's mask: PNG, 0 and 255, of the image's size; `PromptError`: there is none yet."""
    if widget.mask is None:
        raise PromptError(f"there is no mask to save yet: {HINT}")
    write_mask(widget.mask, path)


def save_prompts(widget: BoxPrompt, path: Path) -> None:
    """Writes image name and size, boxes, points, whether on a proposal, each model's scores and Dice as JSON."""
    height, width = widget.image.shape[:2]
    answers = {
        name: {"scores": None if a.scores is None else a.scores.round(4).tolist(), "dice": a.dice}
        for name, a in widget.answers.items()
    }
    prompts = {"boxes": widget.boxes, "points": widget.points, "proposed": widget.prompts()[2]}
    content = {"image": widget.name, "width": width, "height": height, **prompts, "answers": answers}
    write_text(path, json.dumps(content, indent=1) + "\n")


def python_call(widget: BoxPrompt, image_code: str) -> str:
    """Python that gives the first model's mask again; `image_code` makes `image`. `PromptError`: no prompt yet."""
    boxes, points, proposed = widget.prompts()
    if widget.mask is None:
        raise PromptError(f"there is no prompt to write down yet: {HINT}")
    predict = next(iter(widget.predictors.values()))
    if not isinstance(predict, SegmenterPredictor):
        name = getattr(predict, "__name__", "predict")
        arrays = f"np.array({boxes.tolist()}).reshape(-1, 4), np.array({points.tolist()}).reshape(-1, 3)"
        return f"import numpy as np\n\n{image_code}\nmasks = {name}(image, {arrays})\n"
    tta = ", tta=True" * predict.segmenter.tta
    lines = [
        "import numpy as np\n",
        "from medsam_helpers.sam.segmenter import Segmenter",
        image_code,
        f'segmenter = Segmenter.load({predict.source!r}, precision="{predict.segmenter.precision}"{tta})',
        "embedding = segmenter.embed(image)",
        "masks = []",
    ]
    for calls in predict.rounds(boxes, points, proposed):
        refined = ""
        for call in calls:
            values = (f", {key}=np.array({value.astype(float).round(2).tolist()})" for key, value in call.items())
            lines.append(f"answer = segmenter.predict(embedding{''.join(values)}{refined})")
            refined = ", mask_logits=answer.logits"
        lines.append("masks.append(answer.masks[:, 0])")
    return "\n".join([*lines, "mask = np.concatenate(masks).any(axis=0)\n"])
