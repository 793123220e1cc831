"""The qualitative table: order, scores, pictures; its page is whole, the same each time, and needs no network."""

import base64
import io
import re
from html import unescape

import numpy as np
import pandas as pd
import pytest
from helpers import draw_discs, mask_of
from PIL import Image, ImageColor

from medsam_helpers.data.case import Case
from medsam_helpers.errors import ConfigError, DataError
from medsam_helpers.evaluation.evaluate import evaluate
from medsam_helpers.evaluation.predictors import BASELINES
from medsam_helpers.figures.cases import COLORS
from medsam_helpers.figures.gallery import qualitative_html, qualitative_table, small_picture

MODELS = {"first": BASELINES["box"], "second": BASELINES["ellipse"]}
YELLOW, BLUE = (ImageColor.getrgb(COLORS[role]) for role in ("prediction", "prompt"))


def test_the_worst_of_the_last_model_comes_first_with_the_scores_of_evaluate():
    cases = draw_discs(6)
    table = qualitative_table(cases, MODELS, "j50")
    scores = evaluate(cases, MODELS, prompts=["j50"]).set_index(["model", "case"])
    assert table["second Dice"].is_monotonic_increasing
    assert sorted(table["case"]) == sorted(cases.names)
    for row in table.to_dict("records"):
        case = cases[cases.names.index(row["case"])]
        assert row["truth area, %"] == pytest.approx(100 * case.mask.mean())
        for model in MODELS:
            assert row[f"{model} Dice"] == scores.loc[(model, row["case"]), "dice"]
            share = 100 * scores.loc[(model, row["case"]), "area_pred"] / case.mask.size
            assert row[f"{model} area, %"] == pytest.approx(share)


def test_cases_without_a_lesion_are_left_out_by_name():
    empty = Case("empty", np.zeros((50, 60, 3), np.uint8), np.zeros((50, 60), bool))
    table = qualitative_table([*draw_discs(2), empty], MODELS)
    assert (len(table), table.attrs["left_out"]) == (2, ["empty"])
    with pytest.raises(DataError, match="none of the 1"):
        qualitative_table([empty], MODELS)
    for models in ({}, {"truth": MODELS["first"]}):
        with pytest.raises(ConfigError, match="name one model"):
            qualitative_table(draw_discs(1), models)


def test_outlines_lie_where_the_mask_and_the_box_end():
    mask, gray = mask_of((100, 100), (20, 60, 30, 80)), np.full((100, 100, 3), 90, np.uint8)
    answer = small_picture(gray, prediction=mask)
    rows, columns = np.nonzero((answer == YELLOW).all(axis=-1))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 59, 30, 79)
    assert (answer[25:55, 35:75] == 90).all()  # nothing is painted over the lesion itself
    boxed = (small_picture(gray, boxes=np.array([[30, 20, 80, 60]])) == BLUE).all(axis=-1)
    assert boxed[20, 30:80].all()
    assert boxed[20:60, 79].all()
    assert not boxed[:, :30].any()


def test_the_page_is_whole_and_asks_for_nothing_outside():
    table = qualitative_table(draw_discs(3), MODELS)
    page = qualitative_html(table, "three discs")
    assert page == qualitative_html(table.copy(), "three discs"), "the same text each time"
    assert page.startswith("<p><b>three discs</b></p>")
    assert not re.search(r"<script|href|src='(?!data:image/jpeg)|onclick", page)
    cells = re.findall(r"<t[hd][^>]*>(?:<img src='data:image/jpeg;base64,)?(.*?)(?:' alt='.*'>)?</t[hd]>", page)
    assert cells[: len(table.columns)] == list(table.columns)
    for text, expected in zip(cells[len(table.columns) :], table.to_numpy().ravel(), strict=True):
        if isinstance(expected, np.ndarray):
            picture = np.array(Image.open(io.BytesIO(base64.b64decode(text))))
            assert np.abs(picture.astype(int) - expected).mean() < 12  # JPEG
        else:
            assert text == (expected if isinstance(expected, str) else f"{expected:.2f}")


def test_text_of_others_cannot_break_the_page():
    nasty = "<script>alert('x')</script>\"'&"
    page = qualitative_html(pd.DataFrame({nasty: [nasty]}), note=nasty)
    assert "<script" not in page
    assert unescape(page).count(nasty) == 3, "as note, heading and cell"
