"""Evaluation: what a row holds, that a case's jitter is its own, and that intervals cover what they should."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from medsam_helpers.data.case import Case
from medsam_helpers.errors import ConfigError, DataError, MedsamError, ShapeError
from medsam_helpers.evaluation import metrics
from medsam_helpers.evaluation.evaluate import case_boxes, evaluate, fill_box, fill_ellipse
from medsam_helpers.evaluation.tables import COLUMNS, bootstrap_mean, paired_gain, read_table, summarise, write_table

HW = (60, 90)


def make_case(name, *regions, hw=HW):
    """A case whose lesions are the rectangles `(y0, y1, x0, x1)`."""
    mask = np.zeros(hw, bool)
    for y0, y1, x0, x1 in regions:
        mask[y0:y1, x0:x1] = True
    return Case(name, np.zeros((*hw, 3), np.uint8), mask)


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


def boxes_seen(cases, **changes):
    recorder = Recorder()
    evaluate(cases, {"recorder": recorder}, **changes)
    return recorder.boxes


def test_fill_by_hand():
    expected = [[0, 0, 0, 0, 0], [0, 1, 1, 1, 0], [0, 1, 1, 1, 0]]
    assert fill_box([1, 1, 4, 3], (3, 5)).astype(int).tolist() == expected
    # Centres at 1.5, 2.5, 3.5: a box from 1.5 to 3.5 holds the first (closed) and not the last (open).
    assert fill_box([1.5, 0, 3.5, 1], (1, 5)).astype(int).tolist() == [[0, 1, 1, 0, 0]]
    # Radius 2 round (2, 2): the corner pixels' centres lie 2.12 away, their neighbours' 1.58.
    expected = [[0, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [0, 1, 1, 0]]
    assert fill_ellipse([0, 0, 4, 4], (4, 4)).astype(int).tolist() == expected


def test_filled_ellipse_has_its_area_and_stays_in_the_box():
    box = np.array([10.3, 20.7, 170.9, 95.2])
    ellipse = fill_ellipse(box, (120, 200))
    assert ellipse.sum() == pytest.approx(np.pi / 4 * 160.6 * 74.5, rel=0.005)
    assert not (ellipse & ~fill_box(box, (120, 200))).any()


def test_table_has_exactly_the_promised_columns_and_rows(cases):
    table = evaluate(cases, {"zero-shot": perfect})
    assert ",".join(table.columns) == "case,model,prompt,seed,dice,iou,hd95_percent,nsd,area_true,area_pred,iou_score"
    keys = {(c, m, p) for c in "abc" for m in ("box", "ellipse", "zero-shot") for p in ("exact", "j20", "j50")}
    assert set(table[["case", "model", "prompt"]].itertuples(index=False, name=None)) == keys
    assert len(table) == len(keys)
    assert table.attrs["left_out"] == []


def test_row_by_hand():
    case = make_case("a", (10, 30, 20, 60))

    def half(case, boxes):
        mask = np.zeros(case.size_hw, bool)
        mask[10:20, 20:60] = True
        return mask[None], np.array([0.25])

    table = evaluate([case], {"tuned": half}, prompts=["exact"], seed=7).set_index("model")
    row = table.loc["tuned"]
    assert row[["case", "prompt", "seed"]].tolist() == ["a", "exact", 7]
    assert (row["dice"], row["iou"]) == (pytest.approx(2 / 3), pytest.approx(1 / 2))
    assert (row["area_true"], row["area_pred"], row["iou_score"]) == (800, 400, 0.25)
    mask = half(case, None)[0][0]
    assert row["hd95_percent"] == metrics.hd95_percent(mask, case.mask)
    assert row["nsd"] == metrics.nsd(mask, case.mask)
    # The lesion is a rectangle, so its filled box is perfect; neither baseline has an opinion on itself.
    assert table.loc["box", "dice"] == 1
    assert table.loc["ellipse", "dice"] == pytest.approx(metrics.dice(fill_ellipse([20, 10, 60, 30], HW), case.mask))
    assert table.loc[["box", "ellipse"], "iou_score"].isna().all()


def test_tolerance_is_passed_on():
    def shifted(case, boxes):
        return np.roll(case.mask, 1, axis=1)[None], np.ones(1)

    case = make_case("a", (10, 30, 20, 60))
    strict, loose = (
        evaluate([case], {"m": shifted}, prompts=["exact"], tolerance_1024=t).set_index("model").loc["m", "nsd"]
        for t in (1.0, 20.0)
    )
    assert strict < loose == 1


def test_predictor_is_called_once_a_case_with_all_prompts(cases):
    seen = boxes_seen(cases)
    assert [seen[name].shape for name in "abc"] == [(3, 4)] * 3
    assert seen["a"][0].tolist() == [20, 10, 60, 30]
    assert seen["a"].dtype.kind == "f"


def test_jitter_depends_on_seed_and_name_only(cases):
    alone = boxes_seen([cases[1]])["b"]
    np.testing.assert_array_equal(boxes_seen(cases)["b"], alone)
    np.testing.assert_array_equal(boxes_seen(cases[::-1])["b"], alone)
    np.testing.assert_array_equal(boxes_seen([cases[1]], prompts=["j50", "exact", "j20"])["b"], alone[[2, 0, 1]])
    assert (boxes_seen([cases[1]], seed=1)["b"][1:] != alone[1:]).any()
    twin = Case("another name", cases[1].image, cases[1].mask)
    assert (boxes_seen([twin])["another name"][1:] != alone[1:]).any()


def test_case_boxes_are_those_that_evaluate_prompts_with(cases):
    for mode in ("union", "components"):
        seen = boxes_seen(cases, prompts=["j20"], seed=3, box_mode=mode)
        for case in cases:
            np.testing.assert_array_equal(case_boxes(case, mode, 20, 3), seen[case.name])


def test_jitter_is_known_ahead_for_a_seed_and_name():
    # Stored values: a table of scores is compared with one of last year only while these stay the same.
    boxes = boxes_seen([make_case("polyp", (400, 600, 300, 700), hw=(1024, 1024))], prompts=["j20"])["polyp"]
    np.testing.assert_allclose(boxes[0], [316.554, 414.904, 702.345, 619.321], atol=1e-3)


def test_j50_is_the_draw_of_j20_further():
    exact, j20, j50 = boxes_seen([make_case("a", (400, 600, 300, 700), hw=(1000, 1024))])["a"]
    np.testing.assert_allclose(j50 - exact, 2.5 * (j20 - exact), rtol=1e-3)
    assert (np.abs(j20 - exact) <= 20).all()
    assert (np.abs(j20 - exact) > 0).all()


def test_components_are_prompted_apart_and_scored_as_their_union():
    case = make_case("two", (10, 30, 10, 30), (35, 55, 50, 80))
    recorder = Recorder()
    table = evaluate([case], {"m": recorder}, box_mode="components", prompts=["exact", "j20"]).set_index(
        ["model", "prompt"]
    )
    assert recorder.boxes["two"][:2].tolist() == [[50, 35, 80, 55], [10, 10, 30, 30]]  # the larger one first
    assert recorder.boxes["two"].shape == (4, 4)
    assert table.loc[("m", "exact"), "dice"] == 1
    assert table.loc[("box", "exact"), "area_pred"] == 600 + 400
    assert table.loc[("m", "exact"), "iou_score"] == pytest.approx((0 + 1 / 3) / 2)
    assert table.loc[("m", "j20"), "iou_score"] == pytest.approx((2 / 3 + 1) / 2)
    union = evaluate([case], {"m": Recorder()}, prompts=["exact"]).set_index("model")
    assert union.loc["m", "area_pred"] == 70 * 45


def test_empty_masks_are_left_out_by_name(cases):
    with pytest.warns(UserWarning, match="healthy"):
        table = evaluate([make_case("healthy"), *cases], {"m": perfect})
    assert table.attrs["left_out"] == ["healthy"]
    assert set(table["case"]) == {"a", "b", "c"}
    with pytest.warns(UserWarning, match="healthy"), pytest.raises(DataError, match="none of the 1 cases"):
        evaluate([make_case("healthy")], {"m": perfect})


@pytest.mark.parametrize("prompt", ["point", "j", "j-5", "20", "J20", "jinf"])
def test_unknown_prompt_is_refused(cases, prompt):
    with pytest.raises(ConfigError, match="'exact', or 'jN'"):
        evaluate(cases, {}, prompts=[prompt])


def test_any_jitter_can_be_asked_for(cases):
    assert set(evaluate(cases, {}, prompts=["j7.5", "j0"])["prompt"]) == {"j7.5", "j0"}


def test_a_models_name_must_not_be_a_baselines(cases):
    with pytest.raises(ConfigError, match="ellipse"):
        evaluate(cases, {"ellipse": perfect})


@pytest.mark.parametrize(
    "wrong",
    [
        lambda case, boxes: perfect(case, boxes[:1]),
        lambda case, boxes: (perfect(case, boxes)[0], np.ones(1)),
        lambda case, boxes: (np.zeros((len(boxes), 256, 256), bool), np.ones(len(boxes))),
        lambda case, boxes: (perfect(case, boxes)[0] * 8.0 - 4, np.ones(len(boxes))),  # logits
    ],
)
def test_predictor_that_gives_something_else_is_named(cases, wrong):
    with pytest.raises(ShapeError, match=r"crooked on a: 3 boxes need bool masks \(3, 60, 90\)"):
        evaluate(cases, {"crooked": wrong})


def table_of(**scores):
    """A table with one prompt: model -> Dice by case."""
    rows = [
        {"case": f"case{i}", "model": model, "prompt": "j20", "dice": value}
        for model, values in scores.items()
        for i, value in enumerate(values)
    ]
    rest = {"seed": 0, "iou": 0.5, "hd95_percent": 1.0, "nsd": 0.25, "area_true": 9, "area_pred": 8, "iou_score": 0.5}
    return pd.DataFrame(rows).assign(**rest)[COLUMNS]


def test_bootstrap_agrees_with_resampling_by_hand():
    values = np.random.default_rng(5).beta(8, 1, size=60)
    mean, low, high = bootstrap_mean(values)
    draws = np.random.default_rng(99).choice(values, (20_000, 60)).mean(axis=1)
    assert mean == pytest.approx(values.mean())
    assert (low, high) == pytest.approx(np.percentile(draws, [2.5, 97.5]), abs=0.002)
    assert bootstrap_mean(values) == (mean, low, high)
    assert bootstrap_mean(values, seed=1) != (mean, low, high)
    narrow = bootstrap_mean(values, level=0.5)
    assert low < narrow.low < mean < narrow.high < high


def test_bootstrap_interval_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    intervals = [bootstrap_mean(rng.normal(3, 1, 50), n=500) for _ in range(200)]
    covered = sum(i.low <= 3 <= i.high for i in intervals)
    assert stats.binomtest(covered, 200, 0.93).pvalue > 0.001


def test_bootstrap_of_what_does_not_vary_has_no_width():
    assert bootstrap_mean([0.5]) == (0.5, 0.5, 0.5)
    assert bootstrap_mean([0.25] * 7) == (0.25, 0.25, 0.25)


@pytest.mark.parametrize("values", [[], [0.5, np.nan], [np.inf]])
def test_bootstrap_refuses_what_has_no_mean(values):
    with pytest.raises(DataError, match="finite"):
        bootstrap_mean(values)


def test_gain_is_paired_by_case_whatever_the_order_of_rows():
    base = [0.2, 0.5, 0.9, 0.7]
    table = table_of(tuned=[b + 0.05 for b in base], **{"zero-shot": base})
    gain = paired_gain(table.sample(frac=1, random_state=3), "j20")
    # Every case gains the same: paired there is no spread, unpaired it would be that of the cases.
    assert gain == pytest.approx((0.05, 0.05, 0.05))
    assert paired_gain(table, "j20", model="zero-shot", base="tuned").mean == pytest.approx(-0.05)
    assert paired_gain(table, "j20", metric="nsd").mean == 0


def test_gain_needs_the_same_cases_and_known_names():
    table = table_of(tuned=[0.5, 0.6, 0.7], **{"zero-shot": [0.4, 0.5]})
    with pytest.raises(DataError, match="case2"):
        paired_gain(table, "j20")
    with pytest.raises(ConfigError, match="no prompt 'exact', but j20"):
        paired_gain(table, "exact")
    with pytest.raises(ConfigError, match="no model 'champion', but tuned, zero-shot"):
        paired_gain(table, "j20", model="champion")
    with pytest.raises(ConfigError, match="hd95_percent"):
        paired_gain(table, "j20", metric="area_true")


def test_summary_by_hand_keeps_the_tables_order():
    summary = summarise(table_of(tuned=[0.8, 0.9, 1.0], box=[0.5, 0.5, 0.5]))
    assert list(summary.columns) == [
        "model", "prompt", "n", "dice", "dice_low", "dice_high", "iou", "hd95_percent", "nsd",
    ]  # fmt: skip
    assert summary["model"].tolist() == ["tuned", "box"]
    assert summary.loc[0, ["n", "iou", "hd95_percent", "nsd"]].tolist() == [3, 0.5, 1.0, 0.25]
    assert tuple(summary.loc[0, ["dice", "dice_low", "dice_high"]]) == bootstrap_mean([0.8, 0.9, 1.0])
    assert summary.loc[1, ["dice", "dice_low", "dice_high"]].tolist() == [0.5] * 3


def test_summary_counts_cases_not_seeds():
    table = table_of(tuned=[0.6, 0.9])
    both = summarise(pd.concat([table, table.assign(seed=1, dice=[0.8, 0.9])]))
    assert both.loc[0, "n"] == 2
    assert both.loc[0, "dice"] == pytest.approx((0.7 + 0.9) / 2)


def test_table_survives_its_file_byte_for_byte(tmp_path, cases):
    named = [Case(name, c.image, c.mask) for name, c in zip(["007", "NA", "a,b"], cases, strict=True)]
    table = evaluate(named, {"zero-shot": perfect})
    write_table(table, tmp_path / "scores.csv")
    again = read_table(tmp_path / "scores.csv")
    pd.testing.assert_frame_equal(again, table, atol=1e-6, check_dtype=True)
    write_table(again, tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "scores.csv").read_bytes()
    first = (tmp_path / "scores.csv").read_text().splitlines()[:2]
    assert first == [",".join(COLUMNS), "007,box,exact,0,1.000000,1.000000,0.000000,1.000000,800,800,"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("case,model\na,b\n", "lacks the column.*prompt, seed, dice"),
        ("", "cannot be read"),
        (",".join(COLUMNS) + "\na,box,exact,0,high,1,0,1,5,5,\n", "cannot be read.*high"),
    ],
)
def test_file_that_is_no_table_is_named(tmp_path, text, said):
    path = tmp_path / "scores.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=f"scores.csv.*{said}"):
        read_table(path)


def test_missing_file_is_one_clear_error(tmp_path):
    with pytest.raises(MedsamError, match=r"gone\.csv"):
        read_table(tmp_path / "gone.csv")
