"""A tracking server on the loopback, with all of its data in one folder: what `make mlops` starts."""

import argparse
import atexit
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import platformdirs
import requests
from cryptography.fernet import Fernet

from medsam_helpers.errors import MedsamError
from medsam_helpers.files import atomic_write

HOST = "127.0.0.1"


class ServerError(MedsamError):
    """The tracking server does not start, or does not answer."""


def tracking_uri() -> str:
    """The address of the server to talk to: `MLFLOW_TRACKING_URI`, else that of `make mlops`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"http://{HOST}:5000"


def wait_until(condition: Callable[[], object], timeout_s: float = 300) -> bool:
    """Whether a condition came true within the time: `threading.Event.wait` for a state that sends no event."""
    deadline = time.monotonic() + timeout_s
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(met)


class Server:
    """An MLflow server for this machine alone; a context manager. Started again it has its data, at another port too.

    All its data lie in `folder`, made where missing; port 0 takes a free one.
    """

    def __init__(self, folder: str | Path, port: int = 0) -> None:
        with socket.create_server((HOST, 0)) as probe:
            self.port = port or probe.getsockname()[1]
        self.folder = Path(folder).absolute()
        self.uri = f"http://{HOST}:{self.port}"
        self._process: subprocess.Popen | None = None

    def start(self, timeout_s: float = 300) -> Self:
        """This server, once it answers; `ServerError`, with the end of the log, if it does not or the port is taken."""
        try:
            socket.create_server((HOST, self.port)).close()
        except OSError as error:
            raise ServerError(f"port {self.port} is taken, perhaps by another server: choose another one") from error
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)  # the database holds what others on this machine need not read
        command = [
            *(sys.executable, "-m", "medsam_helpers.mlops.guard"),  # should this process be killed, the server goes too
            *(sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(self.port), "--workers", "1"),
            *("--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}"),
            *("--artifacts-destination", str(self.folder / "artifacts")),
        ]
        with open(log := self.folder / "server.log", "ab") as out:
            # In a session of its own: ^C in a notebook is for the cell, and a stop reaches the server's workers too.
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": out, "stderr": out}
            process = subprocess.Popen(command, env=self.environment(), start_new_session=True, **pipes)
        self._process = process
        atexit.register(self.stop)  # for whoever ends without
        if wait_until(lambda: self._answers() or process.poll() is not None, timeout_s) and process.poll() is None:
            return self
        self.stop()
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
        raise ServerError(f"{log}: no answer within {timeout_s:.0f} s; its log ends so:\n{tail}")

    def stop(self, force: bool = False) -> None:
        """Stop the server and its workers; with `force` at once, as a power cut would."""
        process, self._process = self._process, None
        atexit.unregister(self.stop)
        if process is not None:
            with process:  # closes the pipe to the guard in the end
                for number in [signal.SIGKILL] if force else [signal.SIGTERM, signal.SIGKILL]:
                    with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                        os.killpg(process.pid, number)
                        process.wait(timeout=15)

    def environment(self) -> dict[str, str]:
        """Its environment: this process's (no telemetry), no job runners (1.5 GB), hooks to this machine allowed."""
        key = self.folder / "webhook.key"  # kept: with a new one MLflow would send no hook any more
        if not key.exists():
            with atomic_write(key) as temporary:
                temporary.write_bytes(Fernet.generate_key())
            key.chmod(0o600)
        return {
            "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": key.read_text(),
            "MLFLOW_WEBHOOK_CACHE_TTL": "0",
            **os.environ,
            "DO_NOT_TRACK": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
            "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        }

    def _answers(self) -> bool:
        with contextlib.suppress(requests.RequestException):
            return requests.get(f"{self.uri}/health", timeout=10).ok
        return False

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def main() -> None:
    """Start the server, print its address, stop it on ^C, or when the terminal closes."""
    parser = argparse.ArgumentParser(description="An MLflow server on the loopback; ^C stops it, and nothing is lost.")
    default = os.environ.get("MEDSAM_MLOPS") or f"{platformdirs.user_data_dir('medsam')}/mlops"
    parser.add_argument("--folder", type=Path, default=default, help="of all its data (default: %(default)s)")
    parser.add_argument("--port", type=int, default=5000, help="default: 5000")
    args = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        with Server(args.folder.expanduser(), args.port) as server:
            print(f"MLflow: {server.uri}\ndata:   {server.folder}")
            print(f"for others to find it: export MLFLOW_TRACKING_URI={server.uri}\n^C stops it.", flush=True)
            signal.pause()
    except ServerError as error:
        sys.exit(f"make mlops: {error}")


if __name__ == "__main__":
    main()
