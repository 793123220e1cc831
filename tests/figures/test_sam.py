"""Pictures of prompts, answers, maps and published results: panels, titles, and that nothing is invented."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from medsam_helpers.data.case import Case
from medsam_helpers.figures.cases import COLORS
from medsam_helpers.figures.sam import METHOD_COLORS, answers, inside_sam, published_dice, show_map, show_points


@pytest.fixture
def case():
    mask = np.zeros((30, 40), bool)
    mask[5:20, 10:30] = True
    return Case("square", np.full((30, 40, 3), 128, np.uint8), mask)


@pytest.fixture(autouse=True)
def nothing_is_left_with_pyplot():
    yield
    assert plt.get_fignums() == []


def test_clicks_lie_on_their_pixels_and_say_what_they_mean():
    ax = Figure().subplots()
    assert show_points(ax, np.array([[3, 4], [8, 1]]), [1, 0]) is ax
    lines = ax.get_lines()
    assert [line.get_marker() for line in lines] == ["+", "x"]
    np.testing.assert_array_equal([line.get_xydata()[0] for line in lines], [[3, 4], [8, 1]])
    assert {line.get_color() for line in lines} == {COLORS["prompt"]}
    with pytest.raises(ValueError, match="zip"):
        show_points(ax, np.array([[3, 4], [8, 1]]), [1])


def test_a_click_without_a_label_says_lesion():
    ax = show_points(Figure().subplots(), np.array([3, 4]))
    assert [line.get_marker() for line in ax.get_lines()] == ["+"]


def test_a_map_lies_over_the_greys(case):
    ax = Figure().subplots()
    values = np.linspace(-1, 1, 1200).reshape(30, 40)
    drawn = show_map(ax, case.image, values, "a map")
    assert ax.get_title() == "a map"
    np.testing.assert_array_equal(drawn.get_array(), values)
    assert len(ax.images) == 2


def test_answers_has_a_panel_a_mask_with_all_prompts(case):
    masks = {"empty": np.zeros_like(case.mask), "right": case.mask}
    box, points = np.array([[10, 5, 30, 20]]), np.array([[15, 9], [2, 2]])
    figure = answers(case, masks, boxes=box, points=points, labels=[1, 0], note="a phantom")
    assert [ax.get_title() for ax in figure.axes] == ["empty", "right"]
    assert [len(ax.patches) for ax in figure.axes] == [1, 1]
    assert [len(ax.get_lines()) for ax in figure.axes] == [2, 2]
    assert figure.get_suptitle() == "a phantom"
    assert len(answers(case, {"right": case.mask}).axes) == 1, "a single answer needs no prompt"


def test_inside_sam_has_three_panels_above_and_the_answers_below(case):
    masks = {"one": case.mask, "two": ~case.mask, "box": case.mask}
    maps = np.zeros((3, 30, 40)), np.zeros((30, 40))
    figure = inside_sam(case, np.array([10, 5, 30, 20]), np.array([15, 9]), *maps, masks, note="a phantom")
    titles = [ax.get_title() for ax in figure.axes]
    assert len(titles) == 6
    assert titles[3:] == ["one", "two", "box"]
    with pytest.raises(ValueError, match="zip"):
        inside_sam(case, np.array([10, 5, 30, 20]), np.array([15, 9]), *maps, {"one": case.mask}, "")


def test_what_is_not_stated_gets_no_bar_and_what_is_derived_is_hatched():
    rows = [("polyp", "SAM", 91.3, False), ("tumour", "MedSAM", 87.8, False), ("tumour", "SAM", 35.5, True)]
    figure = published_dice(pd.DataFrame(rows, columns=["task", "method", "dice", "derived"]))
    polyp, tumour = figure.axes
    assert [ax.get_title() for ax in figure.axes] == ["polyp", "tumour"]
    assert [(bar.get_height(), bar.get_hatch()) for bar in polyp.patches] == [(91.3, None)]
    assert [(bar.get_height(), bar.get_hatch()) for bar in tumour.patches] == [(35.5, "//"), (87.8, None)]
    assert sum("not stated" in text.get_text() for text in polyp.texts) == 3
    assert [text.get_text() for text in polyp.get_xticklabels()] == ["SAM", "U-Net", "DeepLab\nV3+", "MedSAM"]
    assert len(METHOD_COLORS) == 4
