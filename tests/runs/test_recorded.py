"""Recorded runs side by side: which rows count, under which name, and the paired difference."""

from io import StringIO

import pandas as pd
import pytest

from medsam_helpers.errors import DataError
from medsam_helpers.evaluation.tables import gains
from medsam_helpers.runs.recorded import runs_as_models

# Scored twice in "far": by both folds' models.
RECORD = """\
run,tested_on,base,model,case,dice
tuned sam,near,mobile-sam,box,a,0.5
tuned sam,near,mobile-sam,box,b,0.7
tuned sam,near,mobile-sam,zero-shot,a,0.8
tuned sam,near,mobile-sam,zero-shot,b,0.6
tuned sam,near,mobile-sam,tuned,a,0.9
tuned sam,near,mobile-sam,tuned,b,0.8
light,near,lite-medsam,zero-shot,a,0.1
light,near,lite-medsam,tuned,a,0.2
U-Net,near,unet-box,zero-shot,a,0.0
U-Net,near,unet-box,tuned,a,0.6
tuned sam,far,mobile-sam,zero-shot,a,0.8
tuned sam,far,mobile-sam,zero-shot,b,0.6
tuned sam,far,mobile-sam,tuned,a,0.7
tuned sam,far,mobile-sam,tuned,b,0.5
tuned sam,far,mobile-sam,tuned,a,0.9
tuned sam,far,mobile-sam,tuned,b,0.5
"""


@pytest.fixture
def record(tmp_path):
    rest = {"prompt": "j20", "seed": 0, "iou": 0.5, "hd95_percent": 1.0, "nsd": 0.5, "iou_score": None}
    table = pd.read_csv(StringIO(RECORD)).assign(**rest, area_true=10, area_pred=10)
    table.to_csv(tmp_path / "metrics.csv", index=False)
    return tmp_path


def test_each_run_and_each_base_is_a_model_but_for_untrained_specialists(record):
    means = runs_as_models(record, "near").groupby("model")["dice"].mean().round(3).to_dict()
    bases = {"box": 0.6, "mobile-sam zero-shot": 0.7, "lite-medsam zero-shot": 0.1}
    assert means == bases | {"tuned sam": 0.85, "light": 0.2, "U-Net": 0.6}


def test_folds_that_all_scored_a_case_are_averaged_by_case(record):
    found = gains(runs_as_models(record, "far"), "j20", "tuned sam", "mobile-sam zero-shot")
    assert found.mean() == pytest.approx(-0.05), "case a: 0.8 - 0.8, case b: 0.5 - 0.6"


def test_what_is_not_there_is_named(record):
    with pytest.raises(DataError, match="nothing was scored on 'mars', but on "):
        runs_as_models(record, "mars")
