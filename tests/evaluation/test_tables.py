"""The table of scores: intervals that cover what they should, paired gains, means by hand, its file."""

import numpy as np
import pandas as pd
import pytest
from helpers import table_of

from medsam_helpers.errors import ConfigError, DataError
from medsam_helpers.evaluation.intervals import mean_interval
from medsam_helpers.evaluation.tables import COLUMNS, gains, paired_gain, summarise
from medsam_helpers.runs.recorded import read_table, write_table


def test_gain_is_paired_by_case_whatever_the_order_of_rows():
    base = [0.2, 0.5, 0.9, 0.7, 0.3]
    table = table_of(tuned=[b + 0.05 for b in base], zero_shot=base)
    gain = paired_gain(table.sample(frac=1, random_state=3), "j20")
    # Every case gains the same: paired there is no spread, unpaired it would be that of the cases.
    assert gain == pytest.approx((0.05, 0.05, 0.05))
    assert paired_gain(table, "j20", model="zero-shot", base="tuned").mean == pytest.approx(-0.05)
    assert paired_gain(table, "j20", metric="nsd").mean == 0

    differences = [0.1, 0.0, 0.2, -0.1, 0.05, 0.3]
    table = table_of(tuned=differences, zero_shot=[0] * 6)
    assert paired_gain(table, "j20") == mean_interval(differences, "t")
    assert gains(table, "j20").tolist() == differences


def test_no_case_is_a_formula_in_a_spreadsheet_and_all_names_come_back(tmp_path):
    names = ["=1+1", "+a", "-b", "@c", "'=d", "plain", "it's"]
    table = table_of(tuned=[0.5] * 7).assign(case=names)
    write_table(table, tmp_path / "metrics.csv")
    cells = [line.split(",")[0] for line in (tmp_path / "metrics.csv").read_text().splitlines()[1:]]
    assert cells == ["'=1+1", "'+a", "'-b", "'@c", "''=d", "plain", "it's"]
    assert read_table(tmp_path / "metrics.csv")["case"].tolist() == names


def test_where_the_table_knows_patients_the_spread_is_theirs(tmp_path):
    table = table_of(tuned=[0.1, 0.0, 0.2, 0.4, 0.05, 0.3] * 2, zero_shot=[0] * 12)
    number = table["case"].str.removeprefix("case").astype(int)
    write_table(table.assign(group="p" + (number // 2).astype(str)), tmp_path / "metrics.csv")
    grouped = read_table(tmp_path / "metrics.csv")
    expected = mean_interval([0.1, 0.0, 0.2, 0.4, 0.05, 0.3] * 2, "t", groups=[i // 2 for i in range(12)])
    assert paired_gain(grouped, "j20") == pytest.approx(expected) != paired_gain(table, "j20")
    assert summarise(grouped)["dice_low"].tolist() != summarise(table)["dice_low"].tolist()
    assert np.isnan(paired_gain(table.assign(group=number // 4), "j20").low), "three patients"


def test_gain_needs_the_same_cases_and_known_names():
    table = table_of(tuned=[0.5, 0.6, 0.7], zero_shot=[0.4, 0.5])
    with pytest.raises(DataError, match="case2"):
        paired_gain(table, "j20")
    with pytest.raises(ConfigError, match="prompt 'exact' is unknown: use j20"):
        paired_gain(table, "exact")


def test_summary_by_hand_keeps_the_tables_order():
    summary = summarise(table_of(tuned=[0.8, 0.9, 1.0], box=[0.5, 0.5, 0.5]))
    assert ",".join(summary.columns) == "model,prompt,n,dice,dice_low,dice_high,iou,hd95_percent,nsd"
    assert summary["model"].tolist() == ["tuned", "box"]
    assert summary.loc[0, ["n", "iou", "hd95_percent", "nsd"]].tolist() == [3, 0.5, 1.0, 0.25]
    assert summary["dice"].tolist() == pytest.approx([0.9, 0.5])
    assert summary[["dice_low", "dice_high"]].isna().all(axis=None), "three images"
    five = table_of(tuned=[0.6, 0.7, 0.8, 0.9, 1.0])
    found = summarise(five).loc[0, ["dice", "dice_low", "dice_high"]]
    assert tuple(found) == mean_interval([0.6, 0.7, 0.8, 0.9, 1.0])
    table = table_of(tuned=[0.6, 0.9])
    both = summarise(pd.concat([table, table.assign(seed=1, dice=[0.8, 0.9])]))
    assert both.loc[0, ["n", "dice"]].tolist() == [2, pytest.approx(0.8)], "counts cases, not seeds"


def test_table_survives_its_file_byte_for_byte(tmp_path):
    table = table_of(box=[1.0, 0.5, 0.25], tuned=[0.1, 0.2, 1 / 3])
    table = table.assign(case=["007", "NA", "a,b"] * 2, iou_score=[np.nan] * 3 + [0.5] * 3)
    write_table(table, tmp_path / "scores.csv")
    again = read_table(tmp_path / "scores.csv")
    pd.testing.assert_frame_equal(again, table, atol=1e-6, check_dtype=True)
    write_table(again, tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "scores.csv").read_bytes()
    first = (tmp_path / "scores.csv").read_text().splitlines()[:2]
    assert first[0] == "case,model,prompt,seed,dice,iou,hd95_percent,nsd,area_true,area_pred,iou_score"
    assert first[1] == "007,box,j20,0,1.000000,0.500000,1.000000,0.250000,9,8,"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read.*No such file"),
        ("case,model\na,b\n", "lacks the column.*prompt, seed, dice"),
        (",".join(COLUMNS) + "\na,box,exact,0,high,1,0,1,5,5,\n", "cannot be read.*high"),
    ],
)
def test_file_that_is_no_table_is_named(tmp_path, text, said):
    path = tmp_path / "scores.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=f"scores.csv.*{said}"):
        read_table(path)
