"""`tools/compare_records.py`: two records of an experiment side by side, by hand-made scores."""

import json

import compare_records
import pandas as pd
import pytest

from medsam_helpers.evaluation.tables import COLUMNS


def save_record(folder, tuned, run="ours"):
    """A record of two images, one of which the tuned model scores with `tuned`."""
    rows = [
        dict.fromkeys(COLUMNS, 0.5)
        | {"case": case, "model": model, "prompt": "j20", "seed": 0, "dice": dice, "run": run}
        | {"tested_on": "kvasir", "base": "mobile-sam"}
        for case in ("a", "b")
        for model, dice in (("box", 0.5), ("zero-shot", 0.8), ("tuned", tuned if case == "a" else 0.9))
    ]
    folder.mkdir(parents=True)
    pd.DataFrame(rows).to_csv(folder / "metrics.csv", index=False)
    done = {"machine": {"cpu": "a processor", "torch_threads": 2}, "precision": "bf16", "seconds": 60.4}
    (folder / "run_card.json").write_text(json.dumps({"commit": "c", "data_digest": "d", "runs": [done, done]}))
    return folder


def test_the_difference_is_again_minus_recorded_on_the_same_images(tmp_path):
    rows = compare_records.compare("e", save_record(tmp_path / "1", 0.9), save_record(tmp_path / "2", 0.7))
    assert [row["run"] for row in rows] == ["mobile-sam zero-shot", "ours"]
    zero_shot, tuned = rows
    assert zero_shot["difference"] == zero_shot["low"] == zero_shot["high"] == 0
    assert (tuned["recorded"], tuned["again"], tuned["difference"]) == pytest.approx((0.9, 0.8, -0.1))
    assert (tuned["low"], tuned["high"]) == pytest.approx((-0.2, 0)), "of two images: both the one, or both the other"


def test_a_run_that_one_record_lacks_is_named(tmp_path):
    with pytest.raises(compare_records.DataError, match="ours, theirs on kvasir"):
        compare_records.compare("e", save_record(tmp_path / "1", 0.9), save_record(tmp_path / "2", 0.9, "theirs"))


@pytest.fixture
def options(tmp_path, monkeypatch):
    """The command line of a comparison with the records in `again`."""
    monkeypatch.setattr(compare_records, "RESULTS", tmp_path / "recorded")
    argv = ["x", "e", "--again", str(tmp_path / "again"), "--output", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", argv)
    return argv


def test_summary_and_card_are_written(tmp_path, options):
    for folder in ("recorded", "again"):
        save_record(tmp_path / folder / "e", 0.9)
    options += ["--clock", "e=130"]
    compare_records.main()
    assert pd.read_csv(tmp_path / "out" / "summary.csv")["difference"].tolist() == [0, 0]
    card = json.loads((tmp_path / "out" / "run_card.json").read_text())
    assert card["clock_seconds"] == {"e": 130}
    made_with = {"machines": ["a processor, threads: 2"], "precision": ["bf16"], "seconds": 121}
    assert card["records"]["e"]["again"] == {"commit": "c", "data_digest": "d", **made_with}


def test_records_of_different_images_are_refused(tmp_path, options):
    save_record(tmp_path / "recorded" / "e", 0.9)
    card = save_record(tmp_path / "again" / "e", 0.9) / "run_card.json"
    card.write_text(card.read_text().replace('"d"', '"other"'))
    with pytest.raises(SystemExit, match="e: the two records were made on different images"):
        compare_records.main()
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_not_there_is_one_line(options):
    with pytest.raises(SystemExit, match=r"compare_records: .*recorded"):
        compare_records.main()
