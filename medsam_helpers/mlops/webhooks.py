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
import os
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from mlflow import MlflowClient
from mlflow.entities.webhook import Webhook

from medsam_helpers.errors import ConfigError
from medsam_helpers.mlops.registry import CHALLENGER
from medsam_helpers.mlops.server import HOST

EVENT, PATH = "challenger-registered", "/hooks/mlflow"
_MAX_BODY = 1_000_000


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
        """Settings of `MEDSAM_WEBHOOK_SECRET`, `MEDSAM_DISPATCH_TOKEN`, `MEDSAM_DISPATCH_REPOSITORY`, `GITHUB_API_URL`.

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
        secret: shared by both ends. The rest is the request's; `timestamp` in seconds since 1970.
    Source: MLflow's documentation, "Webhooks", section on signature verification.

    >>> sign("secret", "1", "2", b"{}")
    'v1,72EbzgLDv52tyOY4YC27IQSjiGr5nutKKXvEM56cM3U='
    """
    signed = f"{delivery}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest()).decode()


def read_decisions(log: Path) -> list[dict[str, Any]]:
    """All decisions that a relay has recorded, the oldest first: time, delivery, accepted, what."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


class Gatekeeper:
    """Decides on hooks, and records each decision before anybody is told of it."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self._lock = settings, threading.Lock()
        self._seen = {known["delivery"]: known["time"] for known in read_decisions(settings.log) if known["accepted"]}
        settings.log.parent.mkdir(parents=True, exist_ok=True)

    def decide(self, headers: Mapping[str, str], body: bytes | None) -> JSONResponse:
        """The answer to a hook, which is passed on if it is genuine, recent and new; without a body it was too long."""
        delivery, status = headers.get("x-mlflow-delivery-id", ""), 202
        try:
            what = pass_on(self._check(delivery, headers, body), self.settings)
        except HTTPException as error:
            what, status = error.detail, error.status_code
        with self._lock:
            if status == 502:  # not passed on: it may come again
                del self._seen[delivery]
            line = {"time": time.time(), "delivery": delivery[:80], "accepted": status == 202, "what": what}
            with self.settings.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        return JSONResponse({"accepted" if status == 202 else "refused": what}, status)

    def _check(self, delivery: str, headers: Mapping[str, str], body: bytes | None) -> dict[str, Any]:
        """A hook's content; 401 for a forged or stale one, 409 for one that was seen before, 400 for nonsense."""
        if body is None:
            raise HTTPException(413, "the body is too long, or its length is not said")
        timestamp = headers.get("x-mlflow-timestamp", "")
        expected = sign(self.settings.secret, delivery, timestamp, body)
        if not hmac.compare_digest(expected.encode(), headers.get("x-mlflow-signature", "").encode()):
            raise HTTPException(401, "the signature does not fit")
        now, tolerance = time.time(), self.settings.tolerance_s
        if not timestamp.isdigit() or abs(now - int(timestamp)) > tolerance:
            raise HTTPException(401, "the time is too far from now")
        try:
            content = json.loads(body)
            content = {"entity": content["entity"], "action": content["action"], "data": dict(content["data"])}
        except (ValueError, KeyError, TypeError) as error:
            raise HTTPException(400, "the body is no hook of MLflow") from error
        with self._lock:
            # What is older than the tolerance would be refused as stale: no need to remember it.
            self._seen = {known: at for known, at in self._seen.items() if now - at <= 2 * tolerance}
            if delivery in self._seen:
                raise HTTPException(409, "this delivery was seen before")
            self._seen[delivery] = now
        return content


def pass_on(content: Mapping[str, Any], settings: Settings) -> str:
    """What was done: GitHub asked for a `repository_dispatch` where an alias `challenger` was set.

    Raises:
        HTTPException: 502, GitHub does not answer or refuses.
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
            timeout=20,
        )
        answer.raise_for_status()
    except requests.RequestException as error:
        raise HTTPException(502, f"GitHub did not take the dispatch: {type(error).__name__}") from error
    return f"dispatched {EVENT} for {model['name']} version {model['version']}"


def make_relay(settings: Settings) -> FastAPI:
    """The relay as an application: `POST /hooks/mlflow`, and `GET /health`."""
    app, gatekeeper = FastAPI(docs_url=None, redoc_url=None, openapi_url=None), Gatekeeper(settings)

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post(PATH)
    async def hook(request: Request) -> JSONResponse:
        short = int(request.headers.get("content-length") or _MAX_BODY + 1) <= _MAX_BODY
        body = await request.body() if short else None
        return await run_in_threadpool(gatekeeper.decide, request.headers, body)

    return app


def connect(client: MlflowClient, relay: str, secret: str) -> Webhook:
    """MLflow's webhook to a relay at an address (without the path); one that goes there already is replaced."""
    for known in client.list_webhooks():
        if known.url == relay + PATH:
            client.delete_webhook(known.webhook_id)
    events: list[Any] = ["model_version_alias.created"]
    return client.create_webhook("relay", relay + PATH, events, description="to GitHub Actions", secret=secret)


class InThread:
    """An application that answers on a free port of the loopback, in a thread, until `stop`; a context manager too."""

    def __init__(self, app: FastAPI) -> None:
        listening = socket.create_server((HOST, 0))  # from now on requests wait until they are answered
        self.uri = f"http://{HOST}:{listening.getsockname()[1]}"
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        self._thread = threading.Thread(target=self._server.run, args=([listening],), daemon=True)
        self._thread.start()

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
