"""`tools/compare_records.py`: two records of an experiment side by side, by hand-made scores."""

import json

import compare_records
import pandas as pd
import pytest

from medsam_helpers.evaluation.tables import COLUMNS


def save_record(folder, tuned, run="ours", digest="d"):
    """A record of two images, one of which the tuned model scores with `tuned`."""
    labels = {"prompt": "j20", "seed": 0, "run": run, "tested_on": "kvasir", "base": "mobile-sam"}
    models = [model for model in ("box", "zero-shot", "tuned") for _ in range(2)]
    scores = {"case": [*"ababab"], "model": models, "dice": [0.5, 0.5, 0.8, 0.8, tuned, 0.9]}
    folder.mkdir(parents=True)
    table = pd.DataFrame(dict.fromkeys(COLUMNS, 0.5) | labels | scores)
    table.to_csv(folder / "metrics.csv", index=False)
    done = {"machine": {"cpu": "a processor", "torch_threads": 2}, "precision": "bf16", "seconds": 60.4}
    (folder / "run_card.json").write_text(json.dumps({"commit": "c", "data_digest": digest, "runs": [done, done]}))
    return folder


def test_the_difference_is_again_minus_recorded_on_the_same_images(tmp_path):
    rows = compare_records.compare("e", save_record(tmp_path / "1", 0.9), save_record(tmp_path / "2", 0.7))
    assert [row["run"] for row in rows] == ["mobile-sam zero-shot", "ours"]
    zero_shot, tuned = rows
    assert zero_shot["difference"] == zero_shot["low"] == zero_shot["high"] == 0
    assert (tuned["recorded"], tuned["again"], tuned["difference"]) == pytest.approx((0.9, 0.8, -0.1))
    assert (tuned["low"], tuned["high"]) == pytest.approx((-0.2, 0)), "of two images: both the one, or both the other"


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """The command line of a comparison with the records in `again`, and the folder of one record."""
    monkeypatch.setattr(compare_records, "RESULTS", tmp_path / "recorded")
    options = ["x", "e", "--again", str(tmp_path / "again"), "--output", str(tmp_path / "out"), "--clock", "e=130"]
    monkeypatch.setattr("sys.argv", options)
    save_record(tmp_path / "recorded" / "e", 0.9)
    return tmp_path


OTHERS = [({"run": "theirs"}, "ours, theirs on kvasir"), ({"digest": "x"}, "different images"), ({}, "metrics.csv")]


@pytest.mark.parametrize(("change", "why"), OTHERS, ids=["another run", "other images", "no record"])
def test_records_that_do_not_compare_are_refused_in_one_line(folders, change, why):
    if change:
        save_record(folders / "again" / "e", 0.9, **change)
    with pytest.raises(SystemExit, match=why):
        compare_records.main()
    assert not (folders / "out").exists()
