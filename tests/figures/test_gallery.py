"""The table to leaf through: order, scores, pictures; its page needs no network, and a browser sorts it."""

import base64
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageColor

from medsam_helpers.data.case import Case
from medsam_helpers.errors import ConfigError, DataError
from medsam_helpers.evaluation.evaluate import evaluate, fill_box, fill_ellipse
from medsam_helpers.figures.cases import COLORS
from medsam_helpers.figures.gallery import qualitative_html, qualitative_table, small_picture


def fill(shape):
    """A predictor that fills each box, with a score of 0.5."""
    return lambda case, boxes: (np.array([shape(box, case.size_hw) for box in boxes]), np.full(len(boxes), 0.5))


MODELS = {"first": fill(fill_box), "second": fill(fill_ellipse)}
GREEN, YELLOW, BLUE = (ImageColor.getrgb(COLORS[role]) for role in ("truth", "prediction", "prompt"))


def has(picture, color):
    return bool((picture == color).all(axis=-1).any())


def test_the_worst_of_the_last_model_comes_first_with_the_scores_of_evaluate(discs):
    cases = discs(6)
    table = qualitative_table(cases, MODELS, "j50", seed=3)
    scores = evaluate(cases, MODELS, prompts=["j50"], seed=3).set_index(["model", "case"])
    assert table["second Dice"].is_monotonic_increasing
    assert sorted(table["case"]) == sorted(cases.names)
    for row in table.to_dict("records"):
        case = cases[cases.names.index(row["case"])]
        assert row["truth area"] == pytest.approx(100 * case.mask.mean())
        for model in MODELS:
            assert row[f"{model} Dice"] == scores.loc[(model, row["case"]), "dice"]
            share = 100 * scores.loc[(model, row["case"]), "area_pred"] / case.mask.size
            assert row[f"{model} area"] == pytest.approx(share)


def test_pictures_show_prompt_truth_and_answer(discs):
    row = qualitative_table(discs(1), MODELS).iloc[0]
    seen = {name: [has(row[name], c) for c in (GREEN, YELLOW, BLUE)] for name in ("image", "truth", "first", "second")}
    assert seen["image"] == [False, False, True]
    assert seen["truth"] == [True, False, False]
    assert seen["first"] == seen["second"] == [True, True, False]


def test_cases_without_a_lesion_are_left_out_by_name(discs):
    empty = Case("empty", np.zeros((50, 60, 3), np.uint8), np.zeros((50, 60), bool))
    table = qualitative_table([*discs(2), empty], MODELS)
    assert len(table) == 2
    assert table.attrs["left_out"] == ["empty"]
    with pytest.raises(DataError, match="none of the 1"):
        qualitative_table([empty], MODELS)


@pytest.mark.parametrize("models", [{}, {"truth": MODELS["first"]}])
def test_models_need_names_that_are_free(discs, models):
    with pytest.raises(ConfigError, match="name one model"):
        qualitative_table(discs(1), models)


def test_an_unknown_prompt_is_refused(discs):
    with pytest.raises(ConfigError, match="j20"):
        qualitative_table(discs(1), MODELS, "tight")


def test_a_thumbnail_keeps_proportions_and_never_enlarges():
    assert small_picture(np.zeros((300, 600, 3), np.uint8), side=128).shape == (64, 128, 3)
    assert small_picture(np.zeros((600, 300, 3), np.uint8), side=128).shape == (128, 64, 3)
    assert small_picture(np.zeros((20, 30, 3), np.uint8), side=128).shape == (20, 30, 3)
    assert small_picture(np.zeros((2000, 3, 3), np.uint8), side=128).shape == (128, 1, 3)


def test_outlines_lie_where_the_mask_and_the_box_end():
    mask = np.zeros((100, 100), bool)
    mask[20:60, 30:80] = True
    gray = np.full((100, 100, 3), 90, np.uint8)
    answer = small_picture(gray, prediction=mask)
    drawn = (answer == YELLOW).all(axis=-1)
    rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (20, 59, 30, 79)
    assert (answer[25:55, 35:75] == 90).all()  # nothing is painted over the lesion itself
    boxed = (small_picture(gray, boxes=np.array([[30, 20, 80, 60]])) == BLUE).all(axis=-1)
    assert boxed[20, 30:80].all()
    assert boxed[20:60, 79].all()
    assert not boxed[:, :30].any()


class Page(HTMLParser):
    """The table's cells, row by row, as (data-value, text, source of the picture)."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.headings, self.outside, self.part = [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.outside += [v for k, v in attrs.items() if k in ("src", "href") and not v.startswith("data:image/jpeg")]
        if tag in ("thead", "tbody"):
            self.part = tag
        if tag == "tr" and self.part == "tbody":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append([attrs.get("data-value"), "", None])
        if tag == "img":
            self.rows[-1][-1][2] = attrs["src"]

    def handle_data(self, data):
        if self.part == "tbody" and self.rows and self.rows[-1]:
            self.rows[-1][-1][1] += data
        elif self.part == "thead":
            self.headings.append(data)


def test_the_page_is_whole_and_asks_for_nothing_outside(discs):
    table = qualitative_table(discs(3), MODELS, side=60)
    page = Page(qualitative_html(table, "three discs"))
    assert page.outside == []
    assert page.headings == list(table.columns)
    for shown, row in zip(page.rows, table.to_dict("records"), strict=True):
        for (value, text, source), (name, expected) in zip(shown, row.items(), strict=True):
            if isinstance(expected, np.ndarray):
                picture = np.array(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))
                assert picture.shape == expected.shape
                assert np.abs(picture.astype(int) - expected).mean() < 12  # JPEG
            else:
                assert value == text == (expected if name == "case" else f"{expected:.2f}")


def test_text_of_others_cannot_break_the_page():
    nasty = "<script>alert('x')</script>\"'&"
    text = qualitative_html(pd.DataFrame({nasty: [nasty], "n": [1]}), note=nasty)
    assert "<script" not in text
    assert Page(text).rows == [[[nasty, nasty, None], ["1", "1", None]]]


SHUFFLED = pd.DataFrame({"case": ["b", "a", "c"], "Dice": [0.9, 0.11, 0.5], "area": [9.0, 100.0, 20.0]})


# Headings clicked on, one after the other, and the cases in the order that follows.
CLICKS = [
    ([], "bac"),
    ([0], "abc"),
    ([0, 0], "cba"),
    ([1], "acb"),
    ([1, 1], "bca"),
    ([2], "bca"),  # by number: as text, 100 would come before 9
    ([1, 1, 0], "abc"),
]


def test_a_browser_sorts_each_table_where_it_stands(tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium on this machine")
    tables = "".join(f"<div id='table{i}'>{qualitative_html(SHUFFLED)}</div>" for i in range(len(CLICKS)))
    pressed = "".join(
        f"document.querySelectorAll('#table{i} button')[{column}].click();"
        for i, (columns, _) in enumerate(CLICKS)
        for column in columns
    )
    page = tmp_path / "page.html"
    page.write_text(f"{tables}<script>{pressed}</script>", encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    result = subprocess.run(
        [*command, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    shown = [Page(part).rows for part in re.split("<div id=.table", result.stdout)[1:]]
    assert ["".join(row[0][1] for row in rows) for rows in shown] == [order for _, order in CLICKS]
