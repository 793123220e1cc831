"""Pictures of a data set: the box lies at its place in every space, padding is hatched."""

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from medsam_helpers.figures.cases import COLORS
from medsam_helpers.figures.data import STRETCHED, show_masks, three_spaces
from medsam_helpers.geometry import ImageTransform


def prompts(ax):
    """Half-open xyxy of the boxes drawn in the prompt's colour."""
    dashed = [p for p in ax.patches if isinstance(p, Rectangle) and p.get_edgecolor()[:3] == to_rgb(COLORS["prompt"])]
    corners = [(p.get_x(), p.get_y(), p.get_x() + p.get_width(), p.get_y() + p.get_height()) for p in dashed]
    return np.array(corners) + 0.5


def paddings(ax):
    """Left, top, width and height of the hatched areas that are not empty."""
    hatched = [p for p in ax.patches if p.get_hatch() and p.get_width() * p.get_height() > 0]
    return [(p.get_x() + 0.5, p.get_y() + 0.5, p.get_width(), p.get_height()) for p in hatched]


def test_the_three_spaces_by_hand(square):
    transform = ImageTransform((60, 100), model_size=200, mask_size=50)
    original, model, mask = three_spaces(square, np.array([40.0, 20, 80, 40]), transform).axes
    np.testing.assert_allclose(prompts(original), [[40, 20, 80, 40]])
    np.testing.assert_allclose(prompts(model), [[80, 40, 160, 80]])
    np.testing.assert_allclose(prompts(mask), [[20, 10, 40, 20]])
    assert [paddings(ax) for ax in (original, model, mask)] == [[], [(0, 120, 200, 80)], [(0, 30, 50, 20)]]


def test_the_padding_of_a_high_image_is_hatched_on_the_right_and_named():
    ax = Figure().subplots()
    show_masks(ax, {"here": (np.ones((60, 60), bool), STRETCHED)}, ImageTransform((120, 60), 240, 60))
    assert paddings(ax) == [(30, 0, 30, 60)]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["here", "padding"]
