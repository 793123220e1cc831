"""Launching: one experiment on this machine's queue and on a real SLURM; failure, requeue, two processes."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
import submitit
import torch
from helpers import draw_discs, make_tiny_sam
from mlflow import MlflowClient
from safetensors.torch import load_file

from medsam_helpers.data.case import Dataset
from medsam_helpers.mlops.launch import TrainingJob, submit
from medsam_helpers.mlops.server import Server, wait_until
from medsam_helpers.phantoms.dataset import save_folder
from medsam_helpers.runs.settings import RunConfig
from medsam_helpers.training.state import STATE_FILE

TOOL = Path(__file__).parents[2] / "tools" / "one_node_slurm.sh"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A cache, a tiny model and a data folder for all jobs of this file."""
    root = tmp_path_factory.mktemp("launch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDSAM_CACHE", str(root / "cache"))
        patch.setenv("OMP_NUM_THREADS", "1")
        make_tiny_sam().save_pretrained(root / "tiny")
        discs = draw_discs(12)
        folder = Dataset("discs", discs[:8], discs[:0], discs[8:], "", "")
        save_folder(folder, root / "discs", show_progress=False)
        yield root


@pytest.fixture(scope="module")
def slurm():
    """A SLURM of one node, started for this file and stopped after it."""
    if os.geteuid() != 0 or not (shutil.which("slurmctld") or shutil.which("apt-get")):
        pytest.skip("a SLURM of one's own takes root, and Debian's packages or apt-get to fetch them")
    if not shutil.which("slurmctld"):
        subprocess.run([TOOL, "install"], check=True)
    line = subprocess.run([TOOL, "start"], check=True, capture_output=True, text=True).stdout
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", line.strip().removeprefix("export SLURM_CONF="))
        yield
        subprocess.run([TOOL, "stop"], check=True)


def config(root, epochs=2, **changes):
    return RunConfig(model=str(root / "tiny"), data=str(root / "discs"), epochs=epochs, batch=4, precision="fp32").but(
        **changes
    )


def weights(folder):
    state = load_file(folder / STATE_FILE)
    return {key: value for key, value in state.items() if key.startswith("current/")}


def assert_equal_weights(one, other):
    expected, found = weights(one), weights(other)
    assert expected.keys() == found.keys()
    assert all(torch.equal(value, found[key]) for key, value in expected.items())


def log_of(job):
    return (job.stderr() or "") + (job.stdout() or "")


@pytest.fixture
def late_server(tmp_path):
    """A server that is not started yet: a tracked job waits for it before it evaluates, so it cannot end before."""
    server = Server(tmp_path / "server")
    yield server
    server.stop()


def is_queued_again(job, folder, interrupt):
    """Interrupt a job that has trained an epoch or more; whether it was queued again."""
    assert wait_until((folder / STATE_FILE).exists), log_of(job)
    interrupt()
    return wait_until(lambda: "Requeued job" in log_of(job))


@pytest.fixture(scope="module")
def reference(root):
    """The run that all others must equal, on this machine's queue, in one process."""
    job = submit(TrainingJob(config(root), root / "reference"), root / "jobs")
    return job.result(), root / "reference", job


def test_a_job_on_this_machine_gives_figures_run_and_logs(reference):
    figures, folder, job = reference
    assert figures["n_train"] == 7
    assert 0 <= figures["tuned_dice"] <= 1
    assert {"run_card.json", "README.md", "decoder.safetensors", "metrics.csv"} <= {p.name for p in folder.iterdir()}
    assert len((folder / "history.csv").read_text().splitlines()) == 1 + 3, "the zero-shot model and two epochs"
    assert "Job completed successfully" in log_of(job)


def test_a_job_that_fails_says_why(root):
    job = submit(TrainingJob(config(root, data=str(root / "nowhere")), root / "failed"), root / "jobs")
    with pytest.raises(submitit.core.utils.FailedJobError, match="nowhere"):
        job.result()
    assert "ConfigError" in job.stderr()


def test_two_processes_give_the_result_of_one(root, reference):
    job = submit(TrainingJob(config(root), root / "two"), root / "jobs", processes=2)
    figures = job.results()
    assert len(figures) == 2
    one, two = weights(reference[1]), weights(root / "two")
    start = make_tiny_sam().state_dict()
    moved = max((one[key] - start[key.removeprefix("current/")]).abs().max().item() for key in one)
    apart = max((one[key] - two[key]).abs().max().item() for key in one)
    assert apart < 0.05 * moved, "what two differ by is small against what training moved"
    assert figures[0]["tuned_dice"] == pytest.approx(reference[0]["tuned_dice"], abs=0.01)


def test_a_job_that_is_interrupted_is_queued_again_and_ends_in_the_same_weights(root, reference, late_server):
    job = submit(TrainingJob(config(root), root / "again", late_server.uri, "launched"), root / "jobs")

    def interrupt():
        controller = psutil.Process(int(job.job_id))
        (task,) = [child for child in controller.children() if "submitit.core._submit" in child.cmdline()]
        task.send_signal(signal.SIGUSR2)

    assert is_queued_again(job, root / "again", interrupt)
    late_server.start()
    job.result()
    assert_equal_weights(reference[1], root / "again")
    client = MlflowClient(late_server.uri)
    runs = client.search_runs([client.get_experiment_by_name("launched").experiment_id])
    kinds = {run.data.tags["medsam.kind"]: run for run in runs}
    assert kinds.keys() == {"training", "evaluation"}, "one run, though it was begun twice"
    epochs = client.get_metric_history(kinds["training"].info.run_id, "epoch")
    assert [point.value for point in epochs] == [0, 1, 2]
    assert kinds["training"].info.status == "FINISHED"
    assert kinds["evaluation"].data.tags["medsam.trained_by"] == kinds["training"].info.run_id


def test_the_same_experiment_on_slurm_gives_the_same_weights(root, reference, slurm):
    job = submit(TrainingJob(config(root), root / "slurm"), root / "jobs", "slurm")
    figures = job.result()
    assert figures["tuned_dice"] == reference[0]["tuned_dice"]
    assert_equal_weights(reference[1], root / "slurm")
    assert "Job completed successfully" in log_of(job)


def test_slurm_tells_of_a_failure_and_queues_what_it_stopped_again(root, reference, slurm, late_server):
    failing = submit(TrainingJob(config(root, data=str(root / "nowhere")), root / "bad"), root / "jobs", "slurm")
    job = submit(TrainingJob(config(root), root / "requeued", late_server.uri), root / "jobs", "slurm")
    with pytest.raises(submitit.core.utils.FailedJobError, match="nowhere"):
        failing.result()
    assert is_queued_again(job, root / "requeued", job._interrupt)
    late_server.start()
    job.result()
    assert_equal_weights(reference[1], root / "requeued")
