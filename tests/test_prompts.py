"""Prompts: boxes by hand, jitter that is signed, scaled and stays inside, points that hit the mask."""

import numpy as np
import pytest
from helpers import mask_of
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from medsam_helpers.errors import ConfigError, PromptError
from medsam_helpers.geometry import check_boxes
from medsam_helpers.prompts import (
    Prompt,
    correcting_click,
    deepest_pixel,
    jitter_boxes,
    mask_to_boxes,
    prompt_name,
    read_prompt,
)


def test_boxes_are_half_open_and_largest_first():
    assert mask_to_boxes(mask_of((5, 7), (3, 4, 2, 3))).tolist() == [[2, 3, 3, 4]]  # x1 = max + 1
    assert mask_to_boxes(np.eye(6, dtype=bool), "components").tolist() == [[0, 0, 6, 6]], "corners touch: one component"
    mask = mask_of((100, 200), (10, 20, 10, 20), (50, 90, 100, 180), (12, 14, 60, 90))
    assert mask_to_boxes(mask).tolist() == [[10, 10, 180, 90]]
    expected = [[100, 50, 180, 90], [10, 10, 20, 20], [60, 12, 90, 14]]  # areas 3200, 100, 60
    assert mask_to_boxes(mask, "components").tolist() == expected


def test_specks_are_not_prompted_for():
    mask = mask_of((100, 200), (10, 30, 10, 30), (95, 96, 190, 191), (80, 81, 150, 152))
    # One pixel is 0.5e-4 of the image and goes, two are 1e-4 and stay.
    assert mask_to_boxes(mask, "components").tolist() == [[10, 10, 30, 30], [150, 80, 152, 81]]
    assert mask_to_boxes(mask).tolist() == [[10, 10, 152, 81]], "a stray pixel must not stretch the union"
    assert mask_to_boxes(mask, min_area=0).tolist() == [[10, 10, 191, 96]]
    lone = mask_of((500, 500), (7, 8, 9, 10))
    assert mask_to_boxes(lone, "components").tolist() == [[9, 7, 10, 8]], "the largest, however small"


@settings(deadline=None)
@given(hnp.arrays(np.bool_, (9, 13)))
def test_boxes_hold_the_mask_and_nothing_can_be_cut_off(mask):
    mask[4, 5] = True
    ((x0, y0, x1, y1),) = mask_to_boxes(mask).astype(int)
    inside = mask[y0:y1, x0:x1]
    assert inside.sum() == mask.sum()
    assert all(side.any() for side in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))
    components = mask_to_boxes(mask, "components", min_area=0)
    assert len(components) == ndimage.label(mask, np.ones((3, 3)))[1]
    assert [*components[:, :2].min(axis=0), *components[:, 2:].max(axis=0)] == [x0, y0, x1, y1]


def test_empty_mask_and_unknown_mode_are_refused():
    with pytest.raises(PromptError, match="mask is empty"):
        mask_to_boxes(np.zeros((4, 4), bool))
    with pytest.raises(PromptError, match="no pixel to click on"):
        deepest_pixel(np.zeros((4, 4), bool))
    with pytest.raises(ConfigError, match="use union, components, labels"):
        mask_to_boxes(np.ones((4, 4), bool), "largest")


@settings(deadline=None)
@given(st.integers(2, 3000), st.integers(2, 3000), st.data())
def test_jitter_stays_inside_and_leaves_at_least_a_pixel(height, width, data):
    x0, y0 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    x1, y1 = data.draw(st.integers(x0 + 1, width)), data.draw(st.integers(y0 + 1, height))
    jitter = data.draw(st.sampled_from([0, 5, 20, 50, 2000]))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    (moved,) = jitter_boxes([[x0, y0, x1, y1]], (height, width), jitter, rng)
    check_boxes(moved, (height, width))
    assert (moved[2:] - moved[:2] >= 1 - 1e-3).all()
    if jitter == 0:
        assert moved.tolist() == [x0, y0, x1, y1]


@pytest.mark.parametrize("hw", [(512, 2048), (300, 256)])
def test_jitter_is_uniform_signed_and_scales_with_the_long_side(hw):
    limit = 20 * max(hw) / 1024
    boxes = np.tile([[0.4, 0.4, 0.6, 0.6]] * np.array([hw[1], hw[0]] * 2), (4000, 1))
    moves = jitter_boxes(boxes, hw, 20, np.random.default_rng(0)) - boxes
    assert 0.99 * limit < np.abs(moves).max() <= limit + 1e-3
    # Inward as often as outward on each side, and as far: mean 0, standard deviation limit / sqrt(3).
    np.testing.assert_allclose((moves > 0).mean(axis=0), 0.5, atol=0.03)
    np.testing.assert_allclose(moves.mean(axis=0), 0, atol=0.03 * limit)
    np.testing.assert_allclose(moves.std(axis=0), limit / np.sqrt(3), rtol=0.03)
    assert np.abs(np.corrcoef(moves.T) - np.eye(4)).max() < 0.06, "the sides move apart from one another"


def test_the_deepest_pixel_is_farthest_from_every_edge():
    assert deepest_pixel(mask_of((5, 7), (1, 4, 2, 5))).tolist() == [3, 2]
    assert deepest_pixel(mask_of((3, 5), (0, 3, 0, 3))).tolist() == [1, 1], "the image's own edge counts"


def test_a_click_corrects_the_largest_mistake_in_its_middle_or_anywhere_in_it():
    truth = mask_of((40, 60), (10, 25, 20, 45))
    missed = mask_of((40, 60), (10, 25, 30, 45), (0, 5, 0, 5))
    assert correcting_click(missed, truth) == [24, 14, 1]
    too_much = truth | mask_of((40, 60), (30, 39, 2, 18))
    _, y, label = correcting_click(too_much, truth)
    assert (y, label) == (34, 0)
    assert correcting_click(truth, truth) is None
    drawn = {tuple(correcting_click(missed, truth, np.random.default_rng(seed))) for seed in range(30)}
    assert len(drawn) > 20
    assert all(20 <= x < 30 and 10 <= y < 25 and label == 1 for x, y, label in drawn)


@given(st.one_of(st.integers(0, 500), st.floats(0, 500, allow_subnormal=False)))
def test_a_prompts_name_gives_its_jitter_back(jitter):
    assert read_prompt(prompt_name(jitter)) == Prompt(jitter)
    assert read_prompt(f"{prompt_name(jitter)}+centre") == Prompt(jitter, centre=True)
    assert [prompt_name(jitter) for jitter in (0, 20, 2.5)] == ["exact", "j20", "j2.5"]


def test_a_prompt_may_be_clicks_or_nothing_and_else_is_refused_with_what_there_is():
    assert (read_prompt("clicks:12"), read_prompt("none")) == (Prompt(clicks=12), Prompt())
    for wrong in ("j-5", "clicks:0", "clicks", "centre", "none+centre"):
        with pytest.raises(ConfigError, match=r"prompt '.+' is unknown: use 'exact', 'jN' for a jitter.* or 'none'"):
            read_prompt(wrong)
