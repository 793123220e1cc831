"""The server: its data outlives it, a taken port is told, no worker stays behind."""

import contextlib
import signal
import socket
import subprocess
import sys

import psutil
import pytest
from mlflow import MlflowClient

from medsam_helpers.mlops import server
from medsam_helpers.mlops.server import Server, ServerError, wait_until


def processes_at(port):
    return [child for child in psutil.Process().children(recursive=True) if str(port) in child.cmdline()]


def test_the_server_keeps_its_data_over_a_restart_at_another_port_and_tells_nobody(tmp_path, monkeypatch):
    monkeypatch.setenv("DO_NOT_TRACK", "false")
    with Server(tmp_path) as first:
        MlflowClient(first.uri).create_experiment("kept")
        assert processes_at(first.port)
        assert first.environment()["DO_NOT_TRACK"] == "true", "whatever was asked for"
    assert not processes_at(first.port), "no worker stays behind"
    key = (tmp_path / "webhook.key").read_text()
    with Server(tmp_path) as again:
        assert MlflowClient(again.uri).get_experiment_by_name("kept")
    assert (tmp_path / "webhook.key").read_text() == key
    assert oct((tmp_path / "webhook.key").stat().st_mode)[-3:] == "600"


def test_a_taken_port_is_told(monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with socket.create_server((server.HOST, 0)) as taken:
        port = str(taken.getsockname()[1])
        monkeypatch.setattr(sys, "argv", ["server", "--port", port])
        with pytest.raises(SystemExit, match=f"make mlops: port {port} is taken"):
            server.main()


def test_a_server_that_ends_at_once_is_told_with_its_log(tmp_path):
    (tmp_path / "mlflow.db").write_text("no database")
    with pytest.raises(ServerError, match=r"no answer within .* its log ends so:"):
        Server(tmp_path).start()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL])
def test_the_server_ends_with_whoever_started_it_and_its_port_is_free(tmp_path, number):
    asked = Server(tmp_path)
    command = [sys.executable, "-m", "medsam_helpers.mlops.server", "--folder", tmp_path, "--port", str(asked.port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout.readline() == f"MLflow: {asked.uri}\n"
        launcher.send_signal(number)
    assert launcher.returncode == (0 if number == signal.SIGHUP else -number)

    def port_is_free():
        with contextlib.suppress(OSError), socket.create_server((server.HOST, asked.port)):
            return True

    assert wait_until(port_is_free, 60)
    assert oct(tmp_path.stat().st_mode)[-3:] == "700", "nobody else reads the database"
