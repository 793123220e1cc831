"""Evaluation as a run of its own: tied to the training, with scores, intervals and pictures, worst case first."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from helpers import draw_discs
from matplotlib.figure import Figure
from mlflow import MlflowClient
from PIL import Image

from medsam_helpers.data.case import Cases, Dataset
from medsam_helpers.evaluation.predictors import fill_box
from medsam_helpers.evaluation.tables import paired_gain
from medsam_helpers.mlops.lineage import runs_using, trace_back
from medsam_helpers.mlops.pictures import draw_lineage
from medsam_helpers.mlops.pipeline import QUALITATIVE_FILE, headline, track_evaluation
from medsam_helpers.mlops.tracking import RunTracker
from medsam_helpers.runs.recorded import read_table


def grown(case, boxes, pixels=6):
    """Masks and scores of a predictor that fills the box, grown by so many pixels."""
    masks = np.array([fill_box(box + np.array([-1, -1, 1, 1]) * pixels, case.size_hw) for box in boxes])
    return masks, np.full(len(boxes), 0.5)


@pytest.fixture(scope="module")
def scored(tmp_path_factory, mlflow_server):
    """A training run, an evaluation that belongs to it, and a model version registered from it."""
    root, cases = tmp_path_factory.mktemp("scored"), draw_discs(9, seed=5)
    dataset = Dataset("discs", cases[:3], cases[3:5], cases[5:], licence="nobody's", citation="none")
    with RunTracker(root, "scored", uri=mlflow_server.uri, hardware_s=0) as tracker:
        tracker.log_data(dataset)
        trained_by = tracker.run_id()
    table, run_id = track_evaluation(tracker, dataset, {"zero-shot": grown, "tuned": partial(grown, pixels=0)})
    client = MlflowClient(mlflow_server.uri)
    client.create_registered_model("discs")
    client.create_model_version("discs", f"runs:/{trained_by}/checkpoint", trained_by, await_creation_for=0)
    client.set_registered_model_alias("discs", "champion", "1")
    return client, root, dataset, trained_by, table, run_id


def test_an_evaluation_is_a_run_that_knows_its_training_and_its_data(scored):
    client, root, _, trained_by, table, run_id = scored
    run = client.get_run(run_id)
    assert (run.info.status, run.data.tags["medsam.trained_by"]) == ("FINISHED", trained_by)
    means = run.data.metrics
    gain = paired_gain(table, "j20")
    assert means["tuned/j20/dice"] == pytest.approx(table.query("model == 'tuned' and prompt == 'j20'")["dice"].mean())
    assert means["gain/j20/mean"] == pytest.approx(gain.mean)
    assert "gain/j20/low" not in means, "of so few images there is no interval"
    assert read_table(root / "val" / "metrics.csv")["dice"].to_numpy() == pytest.approx(table["dice"], abs=1e-6)
    assert {name for name in headline(table) if name.startswith("box/")}, "the baselines stand beside it"


def test_the_table_of_pictures_is_sorted_worst_first_and_its_pictures_are_there(scored, tmp_path):
    client, _, dataset, _, table, run_id = scored
    with open(client.download_artifacts(run_id, QUALITATIVE_FILE, str(tmp_path))) as file:
        stored = json.load(file)
    column = {name: [row[place] for row in stored["data"]] for place, name in enumerate(stored["columns"])}
    worst_first = table.query("model == 'tuned' and prompt == 'j20'").sort_values("dice", kind="stable")
    assert column["case"] == list(worst_first["case"])
    assert column["tuned Dice"] == pytest.approx(worst_first["dice"].to_list(), abs=1e-4)
    case = dataset.val[dataset.val.names.index(column["case"][0])]
    for name in ("image", "truth", "zero-shot", "tuned"):
        picture = client.download_artifacts(run_id, column[name][0]["filepath"], str(tmp_path))
        assert np.array(Image.open(picture)).shape == case.image.shape, "small images stay as large as they are"


def test_lineage_is_known_both_ways_and_drawn(scored):
    client, _, dataset, trained_by, _, run_id = scored
    origin = trace_back(client, "discs", alias="champion")
    assert (origin.model.version, origin.model.aliases, origin.run.info.run_id) == ("1", ["champion"], trained_by)
    assert len(origin.commit.removesuffix("+dirty")) == 40
    assert {purpose: about["cases"] for purpose, about in origin.datasets.items()} == {"train": 3, "dev": 2, "val": 4}
    assert origin.datasets["val"]["licence"] == "nobody's"
    assert [run.info.run_id for run in origin.evaluations] == [run_id]
    assert [run.info.run_id for run in runs_using(client, dataset.train)] == [trained_by]
    assert [run.info.run_id for run in runs_using(client, dataset.val)] == [trained_by, run_id]
    altered = {case.name: case for case in dataset.train}
    case = next(iter(altered.values()))
    altered[case.name] = replace(case, image=case.image ^ (np.indices(case.image.shape).sum(axis=0) == 0))
    assert runs_using(client, Cases(dataset.train.names, altered.get)) == [], "one bit of one pixel was changed"
    shown = " ".join(text.get_text() for text in draw_lineage(Figure().subplots(), origin).texts)
    for word in ("train: 3 cases", "val: 4 cases", "version 1", "@champion", "evaluation"):
        assert word in shown
