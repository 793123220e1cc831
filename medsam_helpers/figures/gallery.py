"""The table to leaf through: each case with its picture, its reference and what every model made of it.

Scores say how many cases fail; only pictures say how. `qualitative_table` gives pictures as arrays, for any tracker;
`qualitative_html` makes one page of it that needs no network and sorts where it stands.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from numbers import Real

import numpy as np
import pandas as pd
from PIL import Image, ImageColor, ImageDraw
from scipy import ndimage

from medsam_helpers.data.case import Case
from medsam_helpers.errors import ConfigError, DataError
from medsam_helpers.evaluation.evaluate import Predictor, case_boxes
from medsam_helpers.evaluation.metrics import dice
from medsam_helpers.figures.cases import COLORS
from medsam_helpers.prompts import BoxMode, jitter_of


def qualitative_table(
    cases: Sequence[Case],
    models: Mapping[str, Predictor],
    prompt: str = "exact",
    *,
    seed: int = 0,
    box_mode: BoxMode = "union",
    side: int = 128,
) -> pd.DataFrame:
    """One row a case, worst first: pictures as arrays, and the scores beside them.

    Args:
        cases: with their references; those without a lesion cannot be prompted and are left out, as in `evaluate`.
        models: predictors by name. The last one's Dice decides the order.
        prompt: "exact", or "jN"; the boxes are those that `evaluate` draws.
        seed: of the jitter.
        box_mode: see `evaluate`.
        side: of the pictures, in pixels of their long side.
    Returns:
        Columns `case`, `image` (with the prompt), `truth` and `truth area`; then for each model its name (the
        picture), `NAME Dice` and `NAME area`. Pictures are (h, w, 3) uint8, areas in percent of the image.
        `table.attrs["left_out"]` lists the cases without a lesion.
    Raises:
        ConfigError: no model, one whose name is a column already, or a prompt that is none.
        DataError: no case has a lesion.
    """
    if not models or {"case", "image", "truth"} & models.keys():
        raise ConfigError("name one model or more, none of them case, image or truth")
    jitter_1024, rows, left_out = jitter_of(prompt), [], []
    for case in cases:
        if not case.mask.any():
            left_out.append(case.name)
            continue
        boxes = case_boxes(case, box_mode, jitter_1024, seed)
        row = {
            "case": case.name,
            "image": small_picture(case.image, boxes=boxes, side=side),
            "truth": small_picture(case.image, truth=case.mask, side=side),
            "truth area": 100 * case.mask.mean(),
        }
        for name, predict in models.items():
            mask = np.any(predict(case, boxes)[0], axis=0)
            row[name] = small_picture(case.image, truth=case.mask, prediction=mask, side=side)
            row |= {f"{name} Dice": dice(mask, case.mask), f"{name} area": 100 * mask.mean()}
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
    side: int = 128,
) -> np.ndarray:
    """A thumbnail with outlines in the colours of `plotting.show_case`; an image that is smaller stays so.

    Args:
        image: (H, W, 3) uint8.
        truth: (H, W) bool, a broad outline.
        prediction: (H, W) bool, a fine outline on top, so that both show where they agree.
        boxes: (N, 4) xyxy, original space.
        side: of the result's long side, in pixels.
    Returns:
        (h, w, 3) uint8.
    """
    height, width = image.shape[:2]
    scale = min(1, side / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    picture = np.array(Image.fromarray(image).resize(size, Image.Resampling.BOX))
    for mask, role, grown in ((truth, "truth", 1), (prediction, "prediction", 0)):
        if mask is not None:
            small = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)) > 127
            outside = ndimage.binary_dilation(small, iterations=grown) if grown else small
            picture[outside & ~ndimage.binary_erosion(small)] = ImageColor.getrgb(COLORS[role])
    drawn = Image.fromarray(picture)
    for x0, y0, x1, y1 in np.reshape(boxes if boxes is not None else [], (-1, 4)) * scale:
        corners = [round(float(v)) for v in (x0, y0, max(x0, x1 - 1), max(y0, y1 - 1))]
        ImageDraw.Draw(drawn).rectangle(corners, outline=COLORS["prompt"], width=2)
    return np.array(drawn)


# A click sorts the rows of the button's own table; the second click turns the order round. No id, no script file.
_SORT = (
    "const h=this.parentNode,t=h.closest('table'),b=t.tBodies[0],i=h.cellIndex,"
    "up=h.getAttribute('aria-sort')!='ascending';"
    "for(const o of h.parentNode.cells)o.removeAttribute('aria-sort');"
    "h.setAttribute('aria-sort',up?'ascending':'descending');"
    "const v=r=>r.cells[i].dataset.value,n=[...b.rows].every(r=>v(r)!=''&&!isNaN(v(r)));"
    "[...b.rows].sort((p,q)=>(up?1:-1)*(n?v(p)-v(q):v(p).localeCompare(v(q)))).forEach(r=>b.append(r))"
)
# Styles of its own, since notebooks and their exports shrink pictures and align text as they like.
_CELL = "padding:4px 6px;text-align:center;vertical-align:middle;border-bottom:1px solid #8884"
_HEAD = f"{_CELL};position:sticky;top:0;background:var(--jp-layout-color0,Canvas)"
_BUTTON = "font:inherit;color:inherit;background:none;border:none;cursor:pointer;text-decoration:underline dotted"


def qualitative_html(table: pd.DataFrame, note: str = "", max_height_px: int = 620) -> str:
    """The table as one piece of HTML: pictures inside it, sorted by a click on a heading; without scripts it stays
    as it is.

    Args:
        table: of `qualitative_table`, or any with arrays (h, w, 3) uint8, numbers and text in its columns.
        note: over the table; phantoms are to be called phantoms.
        max_height_px: what is longer scrolls.
    """
    head = "".join(f"<th style='{_HEAD}'>{_heading(table, name)}</th>" for name in table)
    rows = "".join(
        f"<tr>{''.join(_cell(name, value) for name, value in row.items())}</tr>" for row in table.to_dict("records")
    )
    return (
        f"<p><b>{html.escape(note)}</b></p>"
        f"<div style='max-height:{max_height_px}px;overflow:auto'>"
        "<table style='border-collapse:collapse;font-size:12px'>"
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _heading(table: pd.DataFrame, name: str) -> str:
    text = html.escape(name)
    if len(table) and isinstance(table[name].iloc[0], np.ndarray):
        return text
    return f'<button style="{_BUTTON}" title="sort" onclick="{html.escape(_SORT)}">{text}</button>'


def _cell(name: str, value: object) -> str:
    if isinstance(value, np.ndarray):
        source, (height, width) = _data_uri(value), value.shape[:2]
        size = f"width='{width}' height='{height}' style='max-width:none'"
        shown = f"<img src='{source}' {size} alt='{html.escape(name)}'>"
        return f"<td style='{_CELL}'>{shown}</td>"
    number = isinstance(value, Real)
    text = f"{value:.2f}" if number and not isinstance(value, (int, np.integer)) else html.escape(str(value))
    return f"<td style='{_CELL}' data-value='{text}'>{text}</td>"


def _data_uri(picture: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=85, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
