"""Evaluation: what a row holds, and that a case's jitter is its own."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import mask_of

from medsam_helpers.data.case import Case
from medsam_helpers.errors import ConfigError, DataError, ShapeError
from medsam_helpers.evaluation.evaluate import evaluate, false_positives
from medsam_helpers.evaluation.metrics import score_mask
from medsam_helpers.evaluation.predictors import case_boxes, fill_box, fill_ellipse
from medsam_helpers.evaluation.tables import COLUMNS, clicks_needed

HW = (60, 90)


def make_case(name, *regions, hw=HW):
    """A case whose lesions are the rectangles `(y0, y1, x0, x1)`."""
    return Case(name, np.zeros((*hw, 3), np.uint8), mask_of(hw, *regions))


def perfect(case, boxes):
    return np.repeat(case.mask[None], len(boxes), axis=0), np.full(len(boxes), 0.9)


class Recorder:
    """Fills the boxes, and remembers those it was given."""

    def __init__(self):
        self.boxes = {}

    def __call__(self, case, boxes):
        assert case.name not in self.boxes, "called twice for one case"
        self.boxes[case.name] = boxes
        return np.array([fill_box(box, case.size_hw) for box in boxes]), np.linspace(0, 1, len(boxes))


@pytest.fixture
def cases():
    return [make_case("a", (10, 30, 20, 60)), make_case("b", (25, 50, 5, 25)), make_case("c", (5, 15, 70, 85))]


def boxes_seen(case, **changes):
    recorder = Recorder()
    evaluate([case], {"recorder": recorder}, **changes)
    return recorder.boxes[case.name]


def test_fill_by_hand():
    expected = [[0, 0, 0, 0, 0], [0, 1, 1, 1, 0], [0, 1, 1, 1, 0]]
    assert fill_box([1, 1, 4, 3], (3, 5)).astype(int).tolist() == expected
    # Centres at 1.5, 2.5, 3.5: a box from 1.5 to 3.5 holds the first (closed) and not the last (open).
    assert fill_box([1.5, 0, 3.5, 1], (1, 5)).astype(int).tolist() == [[0, 1, 1, 0, 0]]
    # Radius 2 round (2, 2): the corner pixels' centres lie 2.12 away, their neighbours' 1.58.
    expected = [[0, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [0, 1, 1, 0]]
    assert fill_ellipse([0, 0, 4, 4], (4, 4)).astype(int).tolist() == expected


def test_table_has_exactly_the_promised_columns_and_rows(cases):
    table = evaluate(cases, {"zero-shot": perfect})
    assert list(table.columns) == COLUMNS
    keys = [(c, m, p) for c in "abc" for m in ("box", "ellipse", "zero-shot") for p in ("exact", "j20", "j50")]
    assert list(table[["case", "model", "prompt"]].itertuples(index=False, name=None)) == keys


def test_row_by_hand():
    case = make_case("a", (10, 30, 20, 60))

    def half(case, boxes):
        return mask_of(HW, (10, 20, 20, 60))[None], np.array([0.25])

    table = evaluate([case], {"tuned": half}, prompts=["exact"], seed=7).set_index("model")
    row = {"case": "a", "prompt": "exact", "seed": 7, "area_true": 800, "area_pred": 400, "iou_score": 0.25}
    row |= score_mask(half(case, None)[0][0], case.mask)
    assert table.loc["tuned"].to_dict() == row
    assert (row["dice"], row["iou"]) == (pytest.approx(2 / 3), pytest.approx(1 / 2))
    # The lesion is a rectangle, so its filled box is perfect; neither baseline has an opinion on itself.
    assert table.loc["box", "dice"] == 1
    assert table.loc[["box", "ellipse"], "iou_score"].isna().all()


def test_jitter_depends_on_seed_and_name_only(cases):
    case, together = cases[1], Recorder()
    alone = boxes_seen(case)
    evaluate(cases[::-1], {"together": together})
    np.testing.assert_array_equal(together.boxes["b"], alone)
    np.testing.assert_array_equal(alone[1], case_boxes(case, "union", 20, 0)[0])
    np.testing.assert_array_equal(boxes_seen(case, prompts=["j50", "exact", "j20"]), alone[[2, 0, 1]])
    assert (boxes_seen(case, seed=1)[1:] != alone[1:]).any()
    assert (boxes_seen(replace(case, name="another name"))[1:] != alone[1:]).any()
    # Stored values: a table of scores is compared with one of last year only while these stay the same.
    exact, j20, j50 = boxes_seen(make_case("polyp", (400, 600, 300, 700), hw=(1024, 1024)))
    np.testing.assert_allclose(j20, [316.554, 414.904, 702.345, 619.321], atol=1e-3)
    np.testing.assert_allclose(j50 - exact, 2.5 * (j20 - exact), rtol=1e-3)


def test_components_are_prompted_apart_and_scored_as_their_union():
    case = make_case("two", (10, 30, 10, 30), (35, 55, 50, 80))
    recorder = Recorder()
    table = evaluate([case], {"m": recorder}, box_mode="components", prompts=["exact", "j20"])
    table = table.set_index(["model", "prompt"])
    assert recorder.boxes["two"][:2].tolist() == [[50, 35, 80, 55], [10, 10, 30, 30]]  # the larger one first
    assert recorder.boxes["two"].shape == (4, 4)
    assert table.loc[("m", "exact"), "dice"] == 1
    assert table.loc[("box", "exact"), "area_pred"] == 600 + 400
    assert table.loc[("m", "exact"), "iou_score"] == pytest.approx((0 + 1 / 3) / 2)
    assert table.loc[("m", "j20"), "iou_score"] == pytest.approx((2 / 3 + 1) / 2)


def test_a_box_that_misses_its_lesion_is_counted_and_scored():
    table = evaluate([make_case("dot", (30, 31, 40, 41)), make_case("big", (5, 55, 5, 85))], {"m": perfect})
    assert table.attrs["missed"] == ["dot (j50)"]
    assert len(table[table["case"] == "dot"]) == 3 * 3


def test_what_is_found_in_images_without_a_lesion_counts_as_false_positive():
    def left_half(case, boxes):
        assert boxes.tolist() == [[0, 0, 90, 60]], "the whole image"
        return np.arange(90)[None, None] < np.full((1, 60, 1), 45), np.ones(1)

    found = false_positives([make_case("healthy"), make_case("a", (10, 30, 20, 60))], left_half)
    assert found == {"normal": 1, "false_positives": 1, "false_positive_share": 0.5}
    assert false_positives([make_case("a", (10, 30, 20, 60))], left_half) == {}


def test_empty_masks_are_left_out_by_name(cases):
    with pytest.warns(UserWarning, match="healthy"):
        table = evaluate([make_case("healthy"), *cases], {"m": perfect})
    assert table.attrs["left_out"] == ["healthy"]
    assert set(table["case"]) == {"a", "b", "c"}
    with pytest.warns(UserWarning, match="healthy"), pytest.raises(DataError, match="none of the 1 cases"):
        evaluate([make_case("healthy")], {"m": perfect})
    with pytest.raises(ConfigError, match="'point' is unknown: use 'exact', 'jN'"):
        evaluate(cases, {}, prompts=["point"])
    with pytest.raises(ConfigError, match="ellipse"):
        evaluate(cases, {"ellipse": perfect})


@pytest.mark.parametrize(("factor", "scores"), [(True, 1), (8.0, 3)], ids=["one score for three boxes", "logits"])
def test_predictor_that_gives_something_else_is_named(cases, factor, scores):
    def wrong(case, boxes):
        return perfect(case, boxes)[0] * factor, np.ones(scores)

    with pytest.raises(ShapeError, match=r"crooked on a: 3 boxes need bool masks \(3, 60, 90\)"):
        evaluate(cases, {"crooked": wrong})


class Clicker:
    """Finds one more row of the lesion with each click; alone it finds all."""

    needs_prompt = False

    def predict_case(self, case, boxes=None, points=None):
        if boxes is None:
            return case.mask[None], np.array([0.5])
        masks = np.array([fill_box(box, case.size_hw) for box in boxes])
        for mask, (x, y) in zip(masks, [] if points is None else points.astype(int), strict=False):
            mask[:] = False
            mask[y, x] = True
        return masks, np.zeros(len(boxes))

    def predict_clicks(self, case, clicks):
        rows = np.cumsum(case.mask.any(axis=1))[:, None]
        return np.array([case.mask & (rows <= number) for number in range(1, clicks + 1)]), np.zeros(clicks)


def test_clicks_give_a_row_each_a_centre_one_click_a_box_and_none_asks_for_all():
    case = make_case("a", (10, 14, 20, 60))
    prompts = ["exact", "exact+centre", "clicks:3", "none"]
    table = evaluate([case], {"clicker": Clicker()}, prompts=prompts, show_progress=False)
    own = table[table["model"] == "clicker"].set_index("prompt")["area_pred"].to_dict()
    assert own == {"exact": 160, "exact+centre": 1, "clicks:1": 40, "clicks:2": 80, "clicks:3": 120, "none": 160}
    box = table[table["model"] == "box"].set_index("prompt")["area_pred"].to_dict()
    assert box == {"exact": 160, "exact+centre": 160, "clicks:1": pytest.approx(540, abs=60), "none": 60 * 90}
    with pytest.raises(ConfigError, match="perfect takes boxes only: for the prompt clicks:3 pass a Segmenter"):
        evaluate([case], {"perfect": perfect}, prompts=["clicks:3"])


def test_clicks_needed_by_hand(cases):
    table = evaluate(cases[:1], {"clicker": Clicker()}, prompts=["clicks:19"], show_progress=False)
    # 20 rows; k of them give Dice 2 k / (k + 20): 0.9 from 16.4, IoU k / 20 from 18.
    assert clicks_needed(table, "clicker").to_dict() == {"a": 17}
    assert clicks_needed(table, "clicker", "iou").to_dict() == {"a": 18}
    few = table[~table["prompt"].isin([f"clicks:{number}" for number in range(9, 20)])]
    assert clicks_needed(few, "clicker").to_dict() == {"a": 8}, "a failure counts as the most that were tried"
    assert clicks_needed(table, "box").to_dict() == {"a": 19}, "its one click was not enough: as many as were tried"
    with pytest.raises(ConfigError, match="box was not scored with clicks"):
        clicks_needed(table[table["model"] != "box"].assign(model="box", prompt="exact"), "box")
