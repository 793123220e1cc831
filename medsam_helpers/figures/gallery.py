"""The qualitative table: each case with its picture, its reference and what every model made of it."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageColor, ImageDraw
from scipy import ndimage

from medsam_helpers.data.case import Case
from medsam_helpers.errors import ConfigError, DataError
from medsam_helpers.evaluation.metrics import dice
from medsam_helpers.evaluation.predictors import Predictor, case_boxes
from medsam_helpers.figures.cases import COLORS
from medsam_helpers.prompts import read_prompt
from medsam_helpers.settings import BoxMode

# Notebooks and their exports shrink pictures and align text as they like: the table says all of it itself.
_STYLES = [
    {"selector": "", "props": "border-collapse:collapse;font-size:12px"},
    {"selector": "th, td", "props": "padding:4px 6px;text-align:center;vertical-align:middle"},
    {"selector": "td", "props": "border-bottom:1px solid #8884"},
    {"selector": "th", "props": "position:sticky;top:0;background:var(--jp-layout-color0,Canvas)"},
    {"selector": "img", "props": "max-width:none"},
]


def qualitative_table(
    cases: Sequence[Case], models: Mapping[str, Predictor], prompt: str = "exact", box_mode: BoxMode = "union"
) -> pd.DataFrame:
    """A table of one row a case, worst first: pictures as arrays, and the scores beside them.

    Args:
        cases: those without a lesion are left out, as in `evaluate`.
        models: predictors by name. The last one's Dice decides the order.
        prompt: "exact", or "jN"; the boxes are those that `evaluate` draws with this `box_mode`.
    Returns:
        Columns `case`, `image` (with the prompt), `truth` and `truth area, %`; then for each model its name (the
        picture), `NAME Dice` and `NAME area, %`. Pictures are (h, w, 3) uint8, areas in percent of the image.
        `table.attrs["left_out"]` lists the cases without a lesion.
    Raises:
        ConfigError: no model, one whose name is a column already, or a prompt that is none.
        DataError: no case has a lesion.
    """
    if not models or {"case", "image", "truth"} & models.keys():
        raise ConfigError("name one model or more, none of them case, image or truth")
    jitter_1024, rows, left_out = read_prompt(prompt).jitter_1024, list[dict[str, Any]](), list[str]()
    if jitter_1024 is None:
        raise ConfigError(f"prompt {prompt!r} has no box to draw: use 'exact' or 'jN'")
    for case in cases:
        if not case.mask.any():
            left_out.append(case.name)
            continue
        boxes = case_boxes(case, box_mode, jitter_1024, seed=0)
        row = {
            "case": case.name,
            "image": small_picture(case.image, boxes=boxes),
            "truth": small_picture(case.image, truth=case.mask),
            "truth area, %": 100 * case.mask.mean(),
        }
        for name, predict in models.items():
            mask = np.any(predict(case, boxes)[0], axis=0)
            row[name] = small_picture(case.image, truth=case.mask, prediction=mask)
            row |= {f"{name} Dice": dice(mask, case.mask), f"{name} area, %": 100 * mask.mean()}
        rows.append(row)
    if not rows:
        raise DataError(f"nothing to show: none of the {len(left_out)} cases has a lesion in its mask")
    table = pd.DataFrame(rows).sort_values(f"{list(models)[-1]} Dice", kind="stable", ignore_index=True)
    table.attrs["left_out"] = left_out
    return table


def small_picture(
    image: np.ndarray,
    *,
    truth: np.ndarray | None = None,
    prediction: np.ndarray | None = None,
    boxes: np.ndarray | None = None,
) -> np.ndarray:
    """A thumbnail (h, w, 3) uint8 of an image (H, W, 3), with outlines in the colours of `show_case`.

    It has 128 pixels on its long side, or is as large as the image. The truth (H, W) bool has a broad outline, the
    prediction a fine one on top: both show where they agree. Boxes are (N, 4) xyxy, original space.
    """
    scale = min(1, 128 / max(image.shape))
    size = [max(1, round(pixels * scale)) for pixels in image.shape[1::-1]]
    picture = np.array(Image.fromarray(image).resize(size, Image.Resampling.BOX))
    for mask, role in ((truth, "truth"), (prediction, "prediction")):
        if mask is not None:
            small = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)) > 127
            outer = ndimage.binary_dilation(small) if role == "truth" else small
            picture[outer & ~ndimage.binary_erosion(small)] = ImageColor.getrgb(COLORS[role])
    drawn = Image.fromarray(picture)
    for box in np.reshape([] if boxes is None else boxes, (-1, 4)) * scale:
        x0, y0, x1, y1 = box.tolist()
        corners = [round(side) for side in (x0, y0, max(x0, x1 - 1), max(y0, y1 - 1))]
        ImageDraw.Draw(drawn).rectangle(corners, outline=COLORS["prompt"], width=2)
    return np.array(drawn)


def qualitative_html(table: pd.DataFrame, note: str = "", max_height_px: int = 620) -> str:
    """The table as one piece of HTML with the pictures inside it; it needs no network and no script.

    It is that of `qualitative_table`, or any with arrays (h, w, 3) uint8, numbers and text in its columns. What is
    longer than `max_height_px` scrolls under the headings.
    """
    pictures = [name for name in table if isinstance(next(iter(table[name]), None), np.ndarray)]
    cases = table.get("case", table.index)
    shown = table.assign(**{str(name): list(zip(cases, table[name], strict=True)) for name in pictures})
    style = shown.style.hide(axis="index").set_table_styles(_STYLES).format_index(escape="html", axis="columns")
    style = style.format({name: partial(_image_tag, str(name)) for name in pictures}, precision=2, escape="html")
    # A fixed uuid: with a random one the same table would be another text each time.
    rows = style.to_html(table_uuid="cases")
    return f"<p><b>{html.escape(note)}</b></p><div style='max-height:{max_height_px}px;overflow:auto'>{rows}</div>"


def _image_tag(name: str, shown: tuple[str, np.ndarray]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(shown[1]).save(buffer, "JPEG", quality=85, subsampling=0)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"<img src='data:image/jpeg;base64,{data}' alt='{html.escape(f'{shown[0]}: {name}')}'>"
