"""From the registry to continuous integration: a small relay that trusts no request it cannot verify.

MLflow signs its hooks but cannot log in anywhere; GitHub wants a token. The relay stands between the two: it checks
signature, age and novelty of a hook, and asks GitHub for a `repository_dispatch`, which starts a workflow.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import json
import logging
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from mlflow import MlflowClient
from mlflow.entities.webhook import Webhook

from medsam_helpers.errors import ConfigError, MedsamError
from medsam_helpers.mlops.registry import CHALLENGER
from medsam_helpers.mlops.server import HOST, free_port

_LOG = logging.getLogger(__name__)
EVENT, PATH = "challenger-registered", "/hooks/mlflow"
_MAX_BODY, _TIMEOUT_S = 1_000_000, 10


class HookError(MedsamError):
    """A hook that is refused; with the HTTP status that says so."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass
class Settings:
    """What the relay needs to know; secrets come from the environment.

    Args:
        secret: shared with MLflow's webhook.
        token: of GitHub, allowed to write contents of the repository.
        repository: OWNER/NAME.
        log: file of decisions, JSON lines; also the memory of what was seen, over a restart.
        api: of GitHub, or of a GitHub server of one's own.
        tolerance_s: how old, or how far in the future, a hook's time may be.
    """

    secret: str = field(repr=False)
    token: str = field(repr=False)
    repository: str
    log: Path
    api: str = "https://api.github.com"
    tolerance_s: int = 300

    @classmethod
    def from_environment(cls, log: Path) -> Settings:
        """`MEDSAM_WEBHOOK_SECRET`, `MEDSAM_DISPATCH_TOKEN`, `MEDSAM_DISPATCH_REPOSITORY`, and `GITHUB_API_URL`.

        Raises:
            ConfigError: one of the first three is not set; names which.
        """
        names = ("MEDSAM_WEBHOOK_SECRET", "MEDSAM_DISPATCH_TOKEN", "MEDSAM_DISPATCH_REPOSITORY")
        if missing := [name for name in names if not os.environ.get(name)]:
            raise ConfigError(f"set {' and '.join(missing)} in the environment; see the docstring of Settings")
        secret, token, repository = (os.environ[name] for name in names)
        return cls(secret, token, repository, log, os.environ.get("GITHUB_API_URL", cls.api))


def sign(secret: str, delivery: str, timestamp: str, body: bytes) -> str:
    """The signature that MLflow sends, `v1,` and the base64 of an HMAC-SHA256.

    Args:
        secret: shared by both ends.
        delivery: id of the delivery.
        timestamp: seconds since 1970, as text.
        body: of the request.
    Source: MLflow's documentation, "Webhooks", section on signature verification.

    >>> sign("secret", "1", "2", b"{}")
    'v1,72EbzgLDv52tyOY4YC27IQSjiGr5nutKKXvEM56cM3U='
    """
    signed = f"{delivery}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest()).decode()


class Gatekeeper:
    """Decides on hooks and remembers them."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self._lock, self._seen = settings, threading.Lock(), {}
        if settings.log.exists():
            for line in settings.log.read_text().splitlines():
                known = json.loads(line)
                if known["accepted"]:
                    self._seen[known["delivery"]] = known["time"]

    def check(self, headers: Any, body: bytes) -> tuple[str, dict[str, Any]]:
        """The delivery's id and its content, for a hook that is genuine, recent and new.

        Raises:
            HookError: it is not; 401 for a forged or stale one, 409 for one that was seen before, 400 for nonsense.
        """
        delivery, timestamp = (headers.get(f"x-mlflow-{name}", "") for name in ("delivery-id", "timestamp"))
        expected = sign(self.settings.secret, delivery, timestamp, body)
        if not hmac.compare_digest(expected.encode(), headers.get("x-mlflow-signature", "").encode()):
            raise HookError(401, "the signature does not fit")
        if not timestamp.isdigit() or abs(time.time() - int(timestamp)) > self.settings.tolerance_s:
            raise HookError(401, "the time is too far from now")
        try:
            content = json.loads(body)
            entity, action, data = content["entity"], content["action"], content["data"]
        except (ValueError, KeyError, TypeError) as error:
            raise HookError(400, "the body is no hook of MLflow") from error
        with self._lock:
            # What is older than the tolerance would be refused as stale: no need to remember it.
            now = time.time()
            self._seen = {k: t for k, t in self._seen.items() if now - t <= 2 * self.settings.tolerance_s}
            if delivery in self._seen:
                raise HookError(409, "this delivery was seen before")
            self._seen[delivery] = now
        return delivery, {"entity": entity, "action": action, "data": data}

    def forget(self, delivery: str) -> None:
        """Let a delivery come again: it was not passed on."""
        with self._lock:
            self._seen.pop(delivery, None)

    def note(self, delivery: str, accepted: bool, what: str) -> None:
        """Write a decision to the log."""
        line = {"time": time.time(), "delivery": delivery[:80], "accepted": accepted, "what": what}
        _LOG.info("%s", line)
        with self._lock:
            self.settings.log.parent.mkdir(parents=True, exist_ok=True)
            with self.settings.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def make_relay(settings: Settings) -> FastAPI:
    """The relay as an application: `POST /hooks/mlflow`, and `GET /health`."""
    app, gatekeeper = FastAPI(docs_url=None, redoc_url=None, openapi_url=None), Gatekeeper(settings)

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post(PATH)
    async def hook(request: Request) -> JSONResponse:
        delivery = request.headers.get("x-mlflow-delivery-id", "")
        try:
            if int(request.headers.get("content-length") or _MAX_BODY + 1) > _MAX_BODY:
                raise HookError(413, "the body is too long, or its length is not said")
            delivery, content = gatekeeper.check(request.headers, await request.body())
            what = await run_in_threadpool(pass_on, content, settings)
        except HookError as error:
            if error.status == 502:
                gatekeeper.forget(delivery)
            gatekeeper.note(delivery, False, str(error))
            return JSONResponse({"refused": str(error)}, error.status)
        gatekeeper.note(delivery, True, what)
        return JSONResponse({"accepted": what}, 202)

    return app


def pass_on(content: dict[str, Any], settings: Settings) -> str:
    """Ask GitHub for a `repository_dispatch` where an alias `challenger` was set; says what was done.

    Raises:
        HookError: 502, GitHub does not answer or refuses.
    """
    data = content["data"]
    if (content["entity"], content["action"]) != ("model_version_alias", "created") or data.get("alias") != CHALLENGER:
        return f"{content['entity']} {content['action']}: nothing to do"
    model = {"name": str(data["name"]), "version": str(data["version"])}
    try:
        answer = requests.post(
            f"{settings.api}/repos/{settings.repository}/dispatches",
            json={"event_type": EVENT, "client_payload": model},
            headers={"Authorization": f"Bearer {settings.token}", "Accept": "application/vnd.github+json"},
            timeout=_TIMEOUT_S,
        )
        answer.raise_for_status()
    except requests.RequestException as error:
        raise HookError(502, f"GitHub did not take the dispatch: {type(error).__name__}") from error
    return f"dispatched {EVENT} for {model['name']} version {model['version']}"


def connect(client: MlflowClient, relay: str, secret: str) -> Webhook:
    """Tell MLflow to send its hooks to a relay; a webhook that goes there already is replaced.

    Args:
        client: of the server.
        relay: its address, without the path.
        secret: which the relay knows too.
    """
    for known in client.list_webhooks():
        if known.url == relay + PATH:
            client.delete_webhook(known.webhook_id)
    return client.create_webhook(
        "relay", relay + PATH, ["model_version_alias.created"], description="to GitHub Actions", secret=secret
    )


class InThread:
    """An application that answers on a free port of the loopback, in a thread, until `stop`; a context manager too."""

    def __init__(self, app: FastAPI) -> None:
        port = free_port()
        self.uri = f"http://{HOST}:{port}"
        self._server = uvicorn.Server(uvicorn.Config(app, host=HOST, port=port, log_level="error"))
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.02)

    def stop(self) -> None:
        """Finish what it is at, and end."""
        self._server.should_exit = True
        self._thread.join()

    def __enter__(self) -> InThread:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def main() -> None:
    """Run the relay on the loopback."""
    parser = argparse.ArgumentParser(description="Relay MLflow's hooks to GitHub Actions; secrets: the environment.")
    parser.add_argument("--port", type=int, default=5001)
    parser.add_argument("--log", type=Path, default=Path("runs/relay.jsonl"))
    args = parser.parse_args()
    uvicorn.run(make_relay(Settings.from_environment(args.log)), host=HOST, port=args.port, log_level="warning")


if __name__ == "__main__":
    main()
