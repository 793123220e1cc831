"""Scores by lesion: groups by hand, any number of models, nothing lost or counted twice."""

import numpy as np
import pandas as pd
import pytest

from medsam_helpers.data.case import Case
from medsam_helpers.errors import ConfigError, DataError
from medsam_helpers.evaluation.tables import lesion_features, scores_by, with_contrast


def make_table(dice):
    """{model: {case: Dice}} as a table of scores, prompt exact."""
    rows = [
        {"case": case, "model": model, "prompt": "exact", "dice": value}
        for model, values in dice.items()
        for case, value in values.items()
    ]
    return pd.DataFrame(rows)


SIZES = pd.DataFrame({"case": list("abcdef"), "lesion_share": [0.01, 0.02, 0.1, 0.2, 0.4, 0.5], "lesions": 1})
DICE = {
    "tuned": {"a": 0.6, "b": 0.8, "c": 0.9, "d": 0.9, "e": 1.0, "f": 0.8},
    "zero-shot": {"a": 0.5, "b": 0.5, "c": 0.8, "d": 0.6, "e": 0.9, "f": 0.7},
    "third": {"a": 0.1, "b": 0.1, "c": 0.1, "d": 0.1, "e": 0.1, "f": 0.1},
}


def test_groups_of_as_many_cases_by_hand():
    found = scores_by(make_table(DICE), SIZES.iloc[::-1], "lesion_share", "exact", groups=3)
    tuned = found[found["model"] == "tuned"]
    assert tuned["n"].tolist() == [2, 2, 2]
    np.testing.assert_allclose(tuned["mean"], [0.7, 0.9, 0.9])
    assert tuned[["from", "to"]].to_numpy().tolist() == [[0.01, 0.02], [0.1, 0.2], [0.4, 0.5]]
    assert set(found["model"]) == {"tuned", "zero-shot", "third"}
    assert found[["low", "high"]].isna().all(axis=None), "two images have no interval"


def test_several_seeds_of_a_case_count_as_one():
    table = make_table({"tuned": {"a": 0.4, "c": 0.9, "e": 1.0}})
    again = table.assign(seed=1, dice=table["dice"] - 0.2)
    found = scores_by(pd.concat([table, again]), SIZES, "lesion_share", "exact", groups=3)
    assert found["n"].tolist() == [1, 1, 1]
    np.testing.assert_allclose(found["mean"], [0.3, 0.8, 0.9])


def test_unknown_names_list_the_known_and_cases_without_features_are_named():
    with pytest.raises(ConfigError, match="lesion_share"):
        scores_by(make_table(DICE), SIZES, "case", "exact")
    with pytest.raises(ConfigError, match="exact"):
        scores_by(make_table(DICE), SIZES, "lesions", "j20")
    with pytest.raises(DataError, match="f: describe"):
        scores_by(make_table(DICE), SIZES.iloc[:5], "lesion_share", "exact")


def test_features_know_size_number_and_contrast_and_leave_empty_masks_out():
    mask = np.zeros((40, 80), bool)
    mask[10:20, 20:40] = mask[30:34, 60:70] = True
    bright = np.where(mask, 200, 120).astype(np.uint8)[..., None].repeat(3, axis=2)
    cases = [Case("bright", bright, mask), Case("dark", 255 - bright, mask), Case("none", bright, mask & False)]
    features = lesion_features(cases).set_index("case")
    assert list(features.index) == ["bright", "dark"]
    assert features["lesion_share"].tolist() == [240 / 3200] * 2
    assert features["lesions"].tolist() == [2, 2]
    assert features["contrast"].tolist() == [80, 80]  # as far apart, whichever is brighter
    recorded = pd.DataFrame({"case": ["a", "b"], "lesion_gray": [90.0, 40], "rim_gray": [70.0, 100]})
    assert with_contrast(recorded)["contrast"].tolist() == [20, 60]
