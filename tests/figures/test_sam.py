"""Pictures of prompts, answers, maps and published results: panels, titles, and that nothing is invented."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from medsam_helpers.figures.sam import answers, inside_sam, published_dice, show_points


def test_clicks_lie_on_their_pixels_and_say_what_they_mean():
    lines = show_points(Figure().subplots(), np.array([[3, 4], [8, 1]]), [1, 0]).get_lines()
    assert [line.get_marker() for line in lines] == ["+", "x"]
    np.testing.assert_array_equal([line.get_xydata()[0] for line in lines], [[3, 4], [8, 1]])
    (click,) = show_points(Figure().subplots(), np.array([3, 4])).get_lines()
    assert click.get_marker() == "+", "without a label it says lesion"


def test_answers_has_a_panel_a_mask_with_all_prompts(square):
    masks = {"empty": np.zeros_like(square.mask), "right": square.mask}
    box, points = np.array([[40, 20, 80, 40]]), np.array([[50, 30], [2, 2]])
    figure = answers(square, masks, boxes=box, points=points, labels=[1, 0], note="a phantom")
    panels = [(ax.get_title(), len(ax.patches), len(ax.get_lines())) for ax in figure.axes]
    assert (panels, figure.get_suptitle()) == ([("empty", 1, 2), ("right", 1, 2)], "a phantom")


def test_inside_sam_has_three_panels_above_and_the_answers_below(square):
    masks = {"one": square.mask, "two": ~square.mask, "box": square.mask}
    maps = np.zeros((3, 60, 100)), np.linspace(-1, 1, 6000).reshape(60, 100)
    figure = inside_sam(square, np.array([40, 20, 80, 40]), np.array([50, 30]), *maps, masks, note="a phantom")
    assert [ax.get_title() for ax in figure.axes[3:]] == ["one", "two", "box"]
    np.testing.assert_array_equal(figure.axes[2].images[-1].get_array(), maps[1])


def test_what_is_not_stated_gets_no_bar_and_what_is_derived_is_hatched():
    rows = [("polyp", "SAM", 91.3, False), ("tumour", "MedSAM", 87.8, False), ("tumour", "SAM", 35.5, True)]
    figure = published_dice(pd.DataFrame(rows, columns=["task", "method", "dice", "derived"]))
    bars = {ax.get_title(): [(bar.get_height(), bar.get_hatch()) for bar in ax.patches] for ax in figure.axes}
    assert bars == {"polyp": [(91.3, None)], "tumour": [(35.5, "//"), (87.8, None)]}
    assert sum("not stated" in text.get_text() for text in figure.axes[0].texts) == 3
