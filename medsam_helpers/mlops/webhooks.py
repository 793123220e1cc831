"""From the registry to continuous integration: a relay that checks MLflow's hooks and starts a workflow on GitHub.

MLflow signs its hooks but cannot log in anywhere; GitHub wants a token, and a `repository_dispatch`.
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
    """What the relay needs to know.

    Args:
        secret: shared with MLflow's webhook.
        token: of GitHub, allowed to write contents of the repository (OWNER/NAME).
        log: file of decisions, JSON lines; what was accepted before a restart is known from it.
        api: of GitHub, or of a GitHub server of one's own.
        tolerance_s: how old, or how far in the future, a hook may be, in seconds.
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
            ConfigError: one of the first three is not set.
        """
        names = ("MEDSAM_WEBHOOK_SECRET", "MEDSAM_DISPATCH_TOKEN", "MEDSAM_DISPATCH_REPOSITORY")
        if missing := [name for name in names if not os.environ.get(name)]:
            raise ConfigError(f"set {' and '.join(missing)} in the environment; see the docstring of Settings")
        return cls(*(os.environ[name] for name in names), log, os.environ.get("GITHUB_API_URL", cls.api))


def sign(secret: str, delivery: str, timestamp: str, body: bytes) -> str:
    """The signature that MLflow sends, `v1,` and the base64 of an HMAC-SHA256.

    Args:
        secret: shared by both ends.
        delivery: id of the request; `timestamp` is its time in seconds since 1970, `body` its content.
    Source: MLflow's documentation, "Webhooks", section on signature verification.

    >>> sign("secret", "1", "2", b"{}")
    'v1,72EbzgLDv52tyOY4YC27IQSjiGr5nutKKXvEM56cM3U='
    """
    signed = f"{delivery}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest()).decode()


def read_decisions(log: Path) -> list[dict[str, Any]]:
    """The decisions that a relay has recorded, the oldest first: time, delivery, accepted, what."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def read_hook(headers: Mapping[str, str], body: bytes, settings: Settings) -> dict[str, Any]:
    """A hook's entity, action and data.

    Raises:
        HTTPException: 401, it is forged or stale; 400, it is no hook of MLflow.
    """
    delivery, timestamp = (headers.get(f"x-mlflow-{name}", "") for name in ("delivery-id", "timestamp"))
    expected = sign(settings.secret, delivery, timestamp, body)
    if not hmac.compare_digest(expected.encode(), headers.get("x-mlflow-signature", "").encode()):
        raise HTTPException(401, "the signature does not fit")
    if not timestamp.isdigit() or abs(time.time() - int(timestamp)) > settings.tolerance_s:
        raise HTTPException(401, "the time is too far from now")
    try:
        content = json.loads(body)
        return {"entity": content["entity"], "action": content["action"], "data": dict(content["data"])}
    except (ValueError, KeyError, TypeError) as error:
        raise HTTPException(400, "the body is no hook of MLflow") from error


def pass_on(content: Mapping[str, Any], settings: Settings) -> str:
    """What was done: GitHub was asked for a `repository_dispatch` if an alias `challenger` was set.

    Raises:
        HTTPException: 502, GitHub does not answer or refuses.
    """
    data = content["data"]
    if (content["entity"], content["action"]) != ("model_version_alias", "created") or data.get("alias") != CHALLENGER:
        return f"{content['entity']} {content['action']}: nothing to do"
    model = {"name": str(data["name"]), "version": str(data["version"])}
    address = f"{settings.api}/repos/{settings.repository}/dispatches"
    headers = {"Authorization": f"Bearer {settings.token}", "Accept": "application/vnd.github+json"}
    asked = {"event_type": EVENT, "client_payload": model}
    try:
        requests.post(address, json=asked, headers=headers, timeout=20).raise_for_status()
    except requests.RequestException as error:
        raise HTTPException(502, f"GitHub did not take the dispatch: {type(error).__name__}") from error
    return f"dispatched {EVENT} for {model['name']} version {model['version']}"


def make_relay(settings: Settings) -> FastAPI:
    """The relay as an application: `POST /hooks/mlflow`, and `GET /health`; a decision is recorded, then answered."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    seen = {known["delivery"] for known in read_decisions(settings.log) if known["accepted"]}
    settings.log.parent.mkdir(parents=True, exist_ok=True)

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post(PATH)
    async def hook(request: Request) -> JSONResponse:
        delivery, status = request.headers.get("x-mlflow-delivery-id", ""), 202
        try:
            if int(request.headers.get("content-length") or _MAX_BODY + 1) > _MAX_BODY:
                raise HTTPException(413, "the body is too long, or its length is not said")
            content = read_hook(request.headers, await request.body(), settings)
            if delivery in seen:
                raise HTTPException(409, "this delivery was seen before")
            seen.add(delivery)  # before GitHub is asked: the same may come meanwhile
            what = await run_in_threadpool(pass_on, content, settings)
        except HTTPException as error:
            what, status = error.detail, error.status_code
        if status == 502:  # not passed on: it may come again
            seen.remove(delivery)
        line = {"time": time.time(), "delivery": delivery[:80], "accepted": status == 202, "what": what}
        with settings.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        return JSONResponse({"accepted" if status == 202 else "refused": what}, status)

    return app


def connect(client: MlflowClient, relay: str, secret: str) -> Webhook:
    """MLflow's webhook to a relay at an address (without the path); one that goes there already is replaced."""
    for known in [known for known in client.list_webhooks() if known.url == relay + PATH]:
        client.delete_webhook(known.webhook_id)
    events: list[Any] = ["model_version_alias.created"]
    return client.create_webhook("relay", relay + PATH, events, secret=secret)


class InThread:
    """An application that answers on a free port of the loopback, as a context manager until the block ends."""

    def __init__(self, app: FastAPI) -> None:
        listening = socket.create_server((HOST, 0))  # from now on requests wait until they are answered
        self.uri = f"http://{HOST}:{listening.getsockname()[1]}"
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        self._thread = threading.Thread(target=self._server.run, args=([listening],), daemon=True)
        self._thread.start()

    def __enter__(self) -> InThread:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()


def main() -> None:
    """Run the relay on the loopback."""
    parser = argparse.ArgumentParser(description="Relay MLflow's hooks to GitHub Actions; secrets: the environment.")
    parser.add_argument("--port", type=int, default=5001)
    parser.add_argument("--log", type=Path, default=Path("runs/relay.jsonl"))
    args = parser.parse_args()
    uvicorn.run(make_relay(Settings.from_environment(args.log)), host=HOST, port=args.port, log_level="warning")


if __name__ == "__main__":
    main()
