"""Recorded runs side by side: which rows count, under which name, and the paired difference."""

import pandas as pd
import pytest

from medsam_helpers.errors import ConfigError, DataError
from medsam_helpers.evaluation.compare import comparison_table, runs_as_models
from medsam_helpers.runs.record import _each_once

BASES = {"tuned sam": "mobile-sam", "light": "lite-medsam", "U-Net": "unet-box"}


def rows_of(run, tested_on, fold, scores):
    """Scores: model -> Dice of each case."""
    return [
        {"case": case, "model": model, "prompt": "j20", "seed": 0, "dice": dice, "iou": dice, "hd95_percent": 1.0}
        | {"nsd": 0.5, "area_true": 10, "area_pred": 10, "iou_score": None}
        | {"run": run, "train_seed": 0, "fold": fold, "tested_on": tested_on, "base": BASES[run]}
        for model, dices in scores.items()
        for case, dice in dices.items()
    ]


@pytest.fixture
def record(tmp_path):
    base = {"box": {"a": 0.5, "b": 0.7}, "zero-shot": {"a": 0.8, "b": 0.6}}
    rows = []
    for fold, case, dice in ((1, "a", 0.9), (2, "b", 0.8)):
        of_fold = {name: {case: dices[case]} for name, dices in base.items()}
        rows += rows_of("tuned sam", "near", fold, of_fold | {"tuned": {case: dice}})
    rows += rows_of("tuned sam", "far", 1, base | {"tuned": {"a": 0.7, "b": 0.5}})
    rows += rows_of("tuned sam", "far", 2, base | {"tuned": {"a": 0.9, "b": 0.5}})
    rows += rows_of("light", "near", None, base | {"zero-shot": {"a": 0.1, "b": 0.1}, "tuned": {"a": 0.2, "b": 0.2}})
    rows += rows_of("U-Net", "near", None, base | {"zero-shot": {"a": 0.0, "b": 0.0}, "tuned": {"a": 0.6, "b": 0.6}})
    _each_once(pd.DataFrame(rows)).to_csv(tmp_path / "metrics.csv", index=False)
    return tmp_path


def test_each_run_is_a_model_and_what_all_share_is_there_once(record):
    table = runs_as_models(record, "near")
    assert set(table.groupby("model").size()) == {2}
    means = table.groupby("model")["dice"].mean().round(3).to_dict()
    assert means == {
        "box": 0.6, "mobile-sam zero-shot": 0.7, "lite-medsam zero-shot": 0.1, "tuned sam": 0.85, "light": 0.2,
        "U-Net": 0.6,
    }  # fmt: skip


def test_folds_that_all_scored_a_case_are_averaged_by_case(record):
    table = runs_as_models(record, "far")
    compared = comparison_table(table, "j20", "mobile-sam zero-shot")
    assert compared.loc["tuned sam", ["n", "dice"]].tolist() == [2, pytest.approx((0.8 + 0.5) / 2)]
    # Case a: 0.8 - 0.8, case b: 0.5 - 0.6.
    assert compared.loc["tuned sam", "Dice minus mobile-sam zero-shot"].startswith("-0.050 [-0.100, ")
    assert compared.loc["mobile-sam zero-shot", "Dice minus mobile-sam zero-shot"] == ""


def test_what_is_not_there_is_named(record):
    with pytest.raises(DataError, match="nothing was scored on 'mars', but on "):
        runs_as_models(record, "mars")
    with pytest.raises(ConfigError, match="model 'nnU-Net' is unknown: use one of "):
        comparison_table(runs_as_models(record, "near"), "j20", "nnU-Net")
