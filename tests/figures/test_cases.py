"""Pictures of cases: what is drawn lies on the right pixels; odd sizes and empty masks are drawn too."""

import numpy as np
import pandas as pd
import pytest
from helpers import mask_of
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from medsam_helpers.data.case import Case
from medsam_helpers.figures.cases import before_after, show_case, training_curves

ZOOM = 20
"""Pixels of the canvas to a pixel of the image."""
STROKE = 5
"""Half of the halo's width on the canvas, and antialiasing: a line of 1.6 points with a 3-point halo at 100 dpi."""
HW = 10, 20
GRAY = np.full((*HW, 3), 128, np.uint8)


def render(**drawn):
    """Canvas (H, W, 3) of the gray image alone on its figure, each of its pixels ZOOM wide."""
    figure = Figure(figsize=(20 * ZOOM / 100, 10 * ZOOM / 100), dpi=100)
    canvas = FigureCanvasAgg(figure)
    show_case(figure.add_axes([0, 0, 1, 1]), GRAY, **drawn)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(int)


@pytest.mark.parametrize(
    ("drawn", "around"),
    [
        ({"boxes": np.array([[2, 1, 5, 4], [10, 3, 18, 9]])}, [2, 1, 18, 9]),
        ({"truth": mask_of(HW, (2, 7, 4, 12))}, [4, 2, 12, 7]),
        ({"prediction": mask_of(HW, (2, 7, 4, 12))}, [4, 2, 12, 7]),
        ({"truth": mask_of(HW, (0, 10, 0, 20))}, [0, 0, 20, 10]),
    ],
)
def test_boxes_and_outlines_run_round_the_pixels_they_hold(drawn, around):
    y, x = np.nonzero((render(**drawn) != render()).any(axis=2))
    changed = [x.min(), y.min(), x.max() + 1, y.max() + 1]
    np.testing.assert_allclose(changed, ZOOM * np.array(around), atol=STROKE)


def test_a_prediction_is_tinted_inside_and_nowhere_else():
    canvas, plain = render(prediction=mask_of(HW, (2, 7, 4, 12))), render()
    inside, outside = np.s_[4 * ZOOM : 5 * ZOOM, 7 * ZOOM : 9 * ZOOM], np.s_[8 * ZOOM :, 15 * ZOOM :]
    assert (canvas[inside] != plain[inside]).any(axis=-1).all()
    assert (canvas[outside] == plain[outside]).all()


def test_before_after_has_a_row_a_case_with_the_dice_of_each_mask():
    wide = Case("wide", GRAY, mask_of(HW, (0, 10, 0, 20)))
    narrow = Case("narrow", np.zeros((31, 3, 3), np.uint8), mask_of((31, 3), (5, 6, 1, 2)))
    boxes, empty = [np.array([[0, 0, 20, 10]]), np.array([[1, 5, 2, 6]])], np.zeros((31, 3), bool)
    before = [mask_of(HW, (0, 10, 0, 10)), empty]
    figure = before_after([wide, narrow], boxes, before, [wide.mask, empty], note="phantoms")
    # Half of a full mask: 2 * 100 / (100 + 200).
    titles = [ax.get_title() for ax in figure.axes]
    assert titles[:3] == ["wide", "zero-shot: Dice 0.67", "fine-tuned: Dice 1.00"]
    assert titles[3:] == ["narrow", "zero-shot: Dice 0.00", "fine-tuned: Dice 0.00"]
    assert figure.get_suptitle() == "phantoms"
    assert figure.axes[0].get_xlim() == (-0.5, 19.5), "the legend's handles leave the view alone"


def test_training_curves_show_what_the_history_holds():
    history = pd.DataFrame({"epoch": [0, 1, 2], "loss": [np.nan, 0.9, 0.4], "dev_dice": [0.5, 0.6, 0.7]})
    axes = training_curves(history, Figure().subplots(1, 2))
    (loss,) = axes[0].get_lines()
    np.testing.assert_array_equal(loss.get_xydata(), [[1, 0.9], [2, 0.4]])
    zero_shot, tuned = axes[1].get_lines()
    assert set(zero_shot.get_ydata()) == {0.5}
    np.testing.assert_array_equal(tuned.get_xydata(), [[1, 0.6], [2, 0.7]])
