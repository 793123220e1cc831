"""The server: its data outlives it, a taken port is told, no worker stays behind."""

import os
import subprocess
import sys

import psutil
import pytest
from mlflow import MlflowClient

from medsam_helpers.mlops.server import Server, ServerError, wait_until, webhook_key


def processes_at(port):
    return [child for child in psutil.Process().children(recursive=True) if str(port) in child.cmdline()]


def test_the_server_keeps_its_data_over_a_restart_at_another_port(tmp_path):
    with Server(tmp_path / "server") as server:
        MlflowClient(server.uri).create_experiment("kept")
        with pytest.raises(ServerError, match=f"port {server.port} is taken"):
            Server(tmp_path / "other", server.port).start()
        command = [sys.executable, "-m", "medsam_helpers.mlops.server", "--port", str(server.port)]
        told = subprocess.run(command, capture_output=True, text=True, check=False)
        assert told.returncode == 1
        assert told.stderr.startswith(f"make mlops: port {server.port} is taken")
        assert processes_at(server.port)
    assert not processes_at(server.port), "no worker stays behind"
    key = webhook_key(tmp_path / "server")
    with Server(tmp_path / "server") as again:
        assert MlflowClient(again.uri).get_experiment_by_name("kept")
    assert webhook_key(tmp_path / "server") == key
    assert oct((tmp_path / "server" / "webhook.key").stat().st_mode)[-3:] == "600"


def test_a_server_that_ends_at_once_is_told_with_its_log(tmp_path):
    (tmp_path / "mlflow.db").write_text("no database")
    with pytest.raises(ServerError, match=r"no answer within .* its log ends so:"):
        Server(tmp_path).start()


def test_telemetry_is_off_in_server_and_client(tmp_path):
    assert Server(tmp_path).environment()["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == os.environ["DO_NOT_TRACK"] == "true"


def test_a_wait_ends_with_the_state_or_with_the_time():
    states = iter([False, False, True])
    assert wait_until(lambda: next(states))
    assert not wait_until(lambda: False, timeout_s=0)
