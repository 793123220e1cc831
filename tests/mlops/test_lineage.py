"""Lineage: the digest sees every pixel, and says which runs used a split."""

from helpers import draw_discs
from mlflow import MlflowClient

from medsam_helpers.data.case import Case, Cases, Dataset
from medsam_helpers.mlops.lineage import runs_using, split_digest
from medsam_helpers.mlops.tracking import RunTracker


def test_one_pixel_changes_the_digest_and_so_which_runs_are_found(tmp_path, mlflow_server):
    cases = draw_discs(4, seed=1)
    dataset = Dataset("discs", cases[:1], cases[1:2], cases[2:], licence="nobody's", citation="none")
    with RunTracker(tmp_path / "run", "pixels", uri=mlflow_server.uri, hardware_s=0) as tracker:
        tracker.log_data(dataset)
        run_id = tracker.run_id()
    client = MlflowClient(mlflow_server.uri)
    assert [run.info.run_id for run in runs_using(client, dataset.val)] == [run_id]

    def altered(name):
        case = dataset.val[dataset.val.names.index(name)]
        image = case.image.copy()
        image[-1, -1, 2] ^= 1
        return Case(name, image, case.mask) if name == dataset.val.names[-1] else case

    other = Cases(dataset.val.names, altered)
    assert split_digest(other) != split_digest(dataset.val)
    assert runs_using(client, other) == []
