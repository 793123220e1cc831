"""A data set in numbers worked out by hand, and in pictures: the box lies at its place in every space."""

import numpy as np
import pytest
from helpers import mask_of
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from medsam_helpers.data.audit import audit
from medsam_helpers.data.case import Case, Cases, Dataset
from medsam_helpers.errors import PromptError
from medsam_helpers.figures.cases import COLORS
from medsam_helpers.figures.data import STRETCHED, case_grid, describe, describe_case, show_masks, three_spaces
from medsam_helpers.geometry import ImageTransform

HW = 50, 100


def prompts(ax):
    """Half-open xyxy of the boxes drawn in the prompt's colour."""
    dashed = [p for p in ax.patches if isinstance(p, Rectangle) and p.get_edgecolor()[:3] == to_rgb(COLORS["prompt"])]
    corners = [(p.get_x(), p.get_y(), p.get_x() + p.get_width(), p.get_y() + p.get_height()) for p in dashed]
    return np.array(corners) + 0.5


def paddings(ax):
    """Left, top, width and height of the hatched areas that are not empty."""
    hatched = [p for p in ax.patches if p.get_hatch() and p.get_width() * p.get_height() > 0]
    return [(p.get_x() + 0.5, p.get_y() + 0.5, p.get_width(), p.get_height()) for p in hatched]


def test_a_grid_has_a_titled_row_of_cases_with_their_sizes(square):
    rows = case_grid({"train": [square, square], "val": [square]}).subfigs
    titles = {row.get_suptitle(): [ax.get_title() for ax in row.axes] for row in rows}
    assert titles == {"train": ["100 x 60", "100 x 60"], "val": ["100 x 60", ""]}


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


def case(name, mask):
    return Case(name, np.where(mask, 200, 100).astype(np.uint8)[..., None].repeat(3, axis=2), mask)


def test_a_case_by_hand():
    expected = {"height": 50, "width": 100, "lesion_share": 0.08, "lesions": 1}
    expected |= {"centre_x": 0.5, "centre_y": 0.3, "lesion_gray": 200, "rim_gray": 100}
    assert describe_case(case("a", mask_of(HW, (10, 20, 30, 70)))) == pytest.approx(expected)
    with pytest.raises(PromptError, match="empty"):
        describe_case(case("a", mask_of(HW)))


def test_the_rim_is_narrow_and_leaves_out_the_recorders_black():
    image = case("a", mask := mask_of(HW, (10, 20, 30, 70))).image
    image[:, 73:] = 250  # the rim is 20 / 1024 of 100 pixels wide, one pixel: nothing out here is in it
    assert describe_case(Case("a", image, mask))["rim_gray"] == 100
    image[:, 70:] = 10
    assert describe_case(Case("a", image, mask))["rim_gray"] == 100
    image[~mask] = 0
    assert np.isnan(describe_case(Case("a", image, mask))["rim_gray"])


def test_rows_agree_with_the_audit():
    masks = {"a": mask_of(HW, (0, 9, 0, 9)), "b": mask_of(HW, (5, 15, 5, 15), (30, 45, 60, 90))}
    cases = Cases(list(masks), lambda name: case(name, masks[name]))
    data = Dataset("by hand", cases[:1], cases[:0], cases[1:], licence="", citation="")
    table = describe(data, show_progress=False)
    assert table["lesions"].tolist() == [1, 2]
    audited = audit(data, show_progress=False).cases
    assert table[audited.columns].equals(audited)
