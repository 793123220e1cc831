"""What a table says in words."""

import pandas as pd
import pytest
from helpers import table_of

from medsam_helpers.errors import ConfigError
from medsam_helpers.runs.findings import UNSEEN, findings

BASE = [0.8, 0.7, 0.9, 0.6, 0.75, 0.8]


def test_a_gain_an_open_gain_a_better_ellipse_few_images_and_the_worst_image():
    better = table_of(zero_shot=BASE, tuned=[dice + 0.1 for dice in BASE], ellipse=[0.5] * 6)
    gain, small, worst, unseen = findings(better, "j20")
    assert gain.startswith("Gain of tuned over zero-shot, prompt j20: +0.100 [+0.100, +0.100] (95 %, 6 images; from")
    so_few = "from so few an interval holds the true value about 88 times in 100"
    assert small == f"Mean Dice over 6 images: {so_few}."
    assert worst == "Worst image of tuned, prompt j20: case3, Dice 0.700."
    assert unseen == UNSEEN

    open_gain = table_of(zero_shot=BASE, tuned=BASE[::-1], ellipse=[0.9] * 6)
    gain, ellipse, *_ = findings(open_gain, "j20")
    assert "The interval holds zero: these images do not show whether tuned or zero-shot is better" in gain
    assert ellipse == "Filling the ellipse in the box beats tuned, prompt j20: Dice 0.900 against 0.758."
    both = findings(pd.concat([better, better.assign(prompt="exact")]))
    assert [sentence.split()[0] for sentence in both] == ["Gain", "Worst", "Gain", "Mean", "Worst", "No"]


def test_several_data_sets_are_told_apart():
    table = table_of(zero_shot=BASE, tuned=[0.9] * 3 + BASE[3:])
    table["case"] = table["case"].map(lambda case: f"{'near' if case < 'case3' else 'far'}::{case}")
    told = findings(table, "j20")
    assert told[1] == "On far alone, prompt j20: Dice 0.717, gain +0.000 (no interval below 5 images)."
    assert told[2] == "On near alone, prompt j20: Dice 0.900, gain +0.100 (no interval below 5 images)."


def test_few_images_have_no_interval_and_many_no_note():
    few = findings(table_of(zero_shot=BASE[:3], tuned=BASE[:3]), "j20")
    assert few[0] == "Gain of tuned over zero-shot, prompt j20: +0.000 (no interval below 5 images)."
    assert few[1] == "Mean Dice over 3 images: no interval below 5 images."
    many = table_of(zero_shot=BASE * 5, tuned=[dice + 0.1 for dice in BASE * 5])
    assert [sentence.split()[0] for sentence in findings(many, "j20")] == ["Gain", "Worst", "No"]
    unchanged = findings(table_of(zero_shot=BASE, tuned=BASE), "j20")[0]
    assert unchanged.endswith("times in 100). Both have the same scores.")


def test_like_is_compared_with_like_and_a_model_alone_has_no_gain():
    table = table_of(zero_shot=BASE, tuned=BASE)
    with_tta = table[table["model"] == "zero-shot"].assign(model="zero-shot with tta", dice=0.5)
    assert findings(pd.concat([table, with_tta]), "j20")[0].startswith("Gain of tuned over zero-shot with tta")
    assert not any("Gain" in sentence for sentence in findings(table[table["model"] == "zero-shot"], "j20"))
    with pytest.raises(ConfigError, match="These scores are of second, first"):
        findings(table.replace({"model": {"tuned": "first", "zero-shot": "second"}}), "j20")
    with pytest.raises(ConfigError, match="'j50' is unknown"):
        findings(table, "j50")


def test_boxes_that_missed_and_images_without_a_lesion_are_told_last():
    table = table_of(zero_shot=BASE, tuned=BASE)
    table.attrs |= {"missed": ["dot (j20)"], "normal": 4, "false_positives": 3, "false_positive_share": 0.25}
    assert findings(table)[-2:] == [
        "1 of the boxes miss their lesion, and count: dot (j20).",
        "Without a prompt tuned finds something in 3 of 4 images without a lesion, on average 25.0 % of their area.",
    ]
