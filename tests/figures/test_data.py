"""Pictures of a data set: the box lies at its place in every space, padding is hatched."""

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from medsam_helpers.data.case import Case
from medsam_helpers.figures.cases import COLORS
from medsam_helpers.figures.data import STRETCHED, case_grid, show_masks, three_spaces
from medsam_helpers.geometry import ImageTransform


def case(name, hw=(60, 120)):
    mask = np.zeros(hw, bool)
    mask[10:40, 30:70] = True
    return Case(name, np.full((*hw, 3), 128, np.uint8), mask)


def prompts(ax):
    """Half-open xyxy of the boxes drawn in the prompt's colour."""
    dashed = [p for p in ax.patches if isinstance(p, Rectangle) and p.get_edgecolor()[:3] == to_rgb(COLORS["prompt"])]
    corners = [(p.get_x(), p.get_y(), p.get_x() + p.get_width(), p.get_y() + p.get_height()) for p in dashed]
    return np.array(corners) + 0.5


def paddings(ax):
    """Left, top, width and height of the hatched areas that are not empty."""
    hatched = [p for p in ax.patches if p.get_hatch() and p.get_width() * p.get_height() > 0]
    return [(p.get_x() + 0.5, p.get_y() + 0.5, p.get_width(), p.get_height()) for p in hatched]


def test_the_three_spaces_by_hand():
    transform = ImageTransform((60, 120), model_size=240, mask_size=60)
    original, model, mask = three_spaces(case("a"), np.array([30.0, 10, 70, 40]), transform).axes
    np.testing.assert_allclose(prompts(original), [[30, 10, 70, 40]])
    np.testing.assert_allclose(prompts(model), [[60, 20, 140, 80]])
    np.testing.assert_allclose(prompts(mask), [[15, 5, 35, 20]])
    assert [paddings(ax) for ax in (original, model, mask)] == [[], [(0, 120, 240, 120)], [(0, 30, 60, 30)]]


def test_the_padding_of_a_high_image_is_hatched_on_the_right_and_named():
    ax = Figure().subplots()
    show_masks(ax, {"here": (np.ones((60, 60), bool), STRETCHED)}, ImageTransform((120, 60), 240, 60))
    assert paddings(ax) == [(30, 0, 30, 60)]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["here", "padding"]


def test_a_grid_shows_each_case_with_its_size():
    figure = case_grid({"first": [case("a"), case("b", (80, 100))], "second": [case("c")]})
    titles = [ax.get_title() for part in figure.subfigs for ax in part.axes]
    assert titles == ["120 x 60", "100 x 80", "120 x 60", ""]
    assert [part.get_suptitle() for part in figure.subfigs] == ["first", "second"]
