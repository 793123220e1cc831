"""Launching: one experiment on this machine's queue and on a real SLURM; failure, requeue, two processes."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pandas as pd
import psutil
import pytest
import submitit
import torch
from safetensors.torch import load_file

from medsam_helpers.mlops.launch import TrainingJob, submit
from medsam_helpers.mlops.server import wait_until
from medsam_helpers.runs.settings import RunConfig
from medsam_helpers.training.state import STATE_FILE

TOOL = Path(__file__).parents[2] / "tools" / "one_node_slurm.sh"


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """A SLURM of one node, started for this file and stopped after it, apart from that of another test run beside."""
    if os.geteuid() != 0 or not (shutil.which("slurmctld") or shutil.which("apt-get")):
        pytest.skip("a SLURM of one's own takes root, and Debian's packages or apt-get to fetch them")
    if not shutil.which("slurmctld"):
        subprocess.run([TOOL, "install"], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDSAM_SLURM", str(tmp_path_factory.mktemp("slurm")))
        patch.setenv("MEDSAM_SLURM_PORT", str(20_000 + 2 * (os.getpid() % 5000)))  # below those that systems give away
        line = subprocess.run([TOOL, "start"], check=True, capture_output=True, text=True).stdout
        where = line.strip().removeprefix("export SLURM_CONF=")
        patch.setenv("SLURM_CONF", where)
        yield
        subprocess.run(["sbatch", "--output=/dev/null", "--wrap", "sleep 600"], check=True)
        states = ["squeue", "--noheader", "--format=%T"]
        assert wait_until(lambda: b"RUNNING" in subprocess.check_output(states))
        subprocess.run([TOOL, "stop"], check=True)
        found = [each.info for each in psutil.process_iter(["name", "environ"])]
        scripts = [each for each in found if each["name"] == "slurm_script"]
        assert where not in [(each["environ"] or {}).get("SLURM_CONF") for each in scripts], "a job survived"


def submitted(place, name, cluster="local", uri=None, processes=1, **changes):
    """A job of two epochs on the folder's data and its model, unless changed."""
    config = RunConfig(model=str(place / "tiny"), data=str(place / "data"), epochs=2, batch=4, precision="fp32")
    job = TrainingJob(config.but(**changes), place / name, uri)
    return submit(job, place / "jobs", cluster, processes=processes)


def log_of(job):
    return (job.stderr() or "") + (job.stdout() or "")


@pytest.fixture(scope="module")
def reference(place, mlflow_server):
    """Figures of the run that others must equal: on this machine's queue, in one process, told to MLflow."""
    job = submitted(place, "reference", uri=mlflow_server.uri)
    figures = job.result()
    assert "Job completed successfully" in log_of(job)
    return figures


def test_a_job_on_this_machine_gives_figures_and_run_and_tells_mlflow(place, reference, client):
    assert reference["n_train"] == 7
    assert 0 <= reference["tuned_dice"] <= 1
    files = {path.name for path in (place / "reference").iterdir()}
    assert {"run_card.json", "README.md", "decoder.safetensors", "metrics.csv"} <= files
    runs = client.search_runs([client.get_experiment_by_name("medsam").experiment_id], "params.epochs = '2'")
    trained = next(run for run in runs if run.info.run_name == "reference")
    assert (trained.info.status, trained.data.tags["medsam.kind"]) == ("FINISHED", "training")


def test_a_job_that_fails_says_why(place):
    job = submitted(place, "failed", data=str(place / "nowhere"))
    with pytest.raises(submitit.core.utils.FailedJobError, match=r"ConfigError[\s\S]*nowhere"):
        job.result()


def test_two_processes_give_the_result_of_one_and_tell_of_one_run(place, reference, client):
    figures = submitted(place, "two", uri=client.tracking_uri, processes=2).results()
    assert [each["tuned_dice"] for each in figures] == pytest.approx([reference["tuned_dice"]] * 2, abs=0.01)
    loss = [pd.read_csv(place / name / "history.csv")["loss"].dropna() for name in ("reference", "two")]
    assert loss[1].to_numpy() == pytest.approx(loss[0].to_numpy(), rel=0.01)
    told = client.search_runs([client.get_experiment_by_name("medsam").experiment_id])
    (trained,) = [run for run in told if run.info.run_name == "two"]
    evaluations = [run for run in told if run.data.tags.get("medsam.trained_by") == trained.info.run_id]
    assert [run.info.status for run in (trained, *evaluations)] == ["FINISHED"] * 2


def test_the_same_experiment_on_slurm_gives_the_same_weights(place, reference, slurm):
    assert submitted(place, "slurm", "slurm").result()["tuned_dice"] == reference["tuned_dice"]
    expected, found = (load_file(place / name / STATE_FILE) for name in ("reference", "slurm"))
    assert expected.keys() == found.keys()
    current = [key for key in expected if key.startswith("current/")]
    assert current
    assert all(torch.equal(expected[key], found[key]) for key in current)


@pytest.mark.parametrize("cluster", ["local", "slurm"])
def test_a_job_that_is_interrupted_is_queued_again_and_does_the_rest(place, cluster, request):
    if cluster == "slurm":
        request.getfixturevalue("slurm")
    folder, job = place / f"interrupted-{cluster}", submitted(place, f"interrupted-{cluster}", cluster, epochs=12)
    assert wait_until((folder / STATE_FILE).exists), log_of(job)
    if cluster == "slurm":
        job._interrupt()
    else:
        children = psutil.Process(int(job.job_id)).children()
        (task,) = [child for child in children if "submitit.core._submit" in child.cmdline()]
        task.send_signal(signal.SIGUSR2)
    assert wait_until(lambda: "Calling checkpoint method" in log_of(job)), log_of(job)
    if cluster == "slurm":  # which lets two minutes go by before it starts a job anew
        now = ["scontrol", "update", f"JobId={job.job_id}", "StartTime=now"]
        assert wait_until(lambda: subprocess.run(now, check=False, capture_output=True).returncode == 0)
    # SLURM may kill the interrupted task as it asks to be queued again, and its error is a result until the next one.
    assert wait_until(lambda: "Job completed successfully" in log_of(job)), log_of(job)
    assert job.result()["n_train"] == 7
    assert list(pd.read_csv(folder / "history.csv")["epoch"]) == list(range(13)), "each epoch once"
