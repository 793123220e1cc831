"""From the registry to continuous integration: a relay that checks MLflow's hooks and starts a workflow on GitHub.

MLflow signs its hooks but cannot log in anywhere; GitHub wants a token, and a `repository_dispatch`.
"""

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
from typing import Any, Self

import requests
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from mlflow import MlflowClient

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
        tolerance_s: greatest difference of a hook's time from now, in seconds.
    """

    secret: str = field(repr=False)
    token: str = field(repr=False)
    repository: str
    log: Path
    api: str = "https://api.github.com"
    tolerance_s: int = 300

    @classmethod
    def from_environment(cls, log: Path) -> Self:
        """Settings of `MEDSAM_WEBHOOK_SECRET`, `MEDSAM_DISPATCH_TOKEN`, `MEDSAM_DISPATCH_REPOSITORY`, `GITHUB_API_URL`.

        Raises:
            ConfigError: one of the first three is not set.
        """
        names = [f"MEDSAM_{name}" for name in ("WEBHOOK_SECRET", "DISPATCH_TOKEN", "DISPATCH_REPOSITORY")]
        if missing := [name for name in names if not os.environ.get(name)]:
            raise ConfigError(f"set {' and '.join(missing)} in the environment; see the docstring of Settings")
        secret, token, repository = (os.environ[name] for name in names)
        return cls(secret, token, repository, log, os.environ.get("GITHUB_API_URL", cls.api))


def sign(secret: str, delivery: str, timestamp: str, body: bytes) -> str:
    """The signature that MLflow sends, `v1,` and the base64 of an HMAC-SHA256.

    Args:
        delivery: id of the request; `timestamp` is its time in seconds since 1970.
    Source: MLflow's documentation, "Webhooks", section on signature verification.

    >>> sign("secret", "1", "2", b"{}")
    'v1,72EbzgLDv52tyOY4YC27IQSjiGr5nutKKXvEM56cM3U='
    """
    signed = f"{delivery}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest()).decode()


def read_decisions(log: Path) -> list[dict[str, Any]]:
    """The decisions that a relay has recorded, the oldest first: time, delivery, accepted, what."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def _read_hook(headers: Mapping[str, str], body: bytes, settings: Settings) -> dict[str, Any]:
    """A hook's entity and action, and its data beside them; 401 if it is forged or stale, 400 if it is no hook."""
    delivery, timestamp = (headers.get(f"x-mlflow-{name}", "") for name in ("delivery-id", "timestamp"))
    expected = sign(settings.secret, delivery, timestamp, body)
    if not hmac.compare_digest(expected.encode(), headers.get("x-mlflow-signature", "").encode()):
        raise HTTPException(401, "the signature does not fit")
    if not timestamp.isdigit() or abs(time.time() - int(timestamp)) > settings.tolerance_s:
        raise HTTPException(401, "the time is too far from now")
    try:
        content = json.loads(body)
        return {**content["data"], "entity": content["entity"], "action": content["action"]}
    except (ValueError, KeyError, TypeError) as error:
        raise HTTPException(400, "the body is no hook of MLflow") from error


def _pass_on(hook: Mapping[str, Any], settings: Settings) -> str:
    """What was done: for a new challenger GitHub was asked for a `repository_dispatch`; 502 if it did not take that."""
    if (hook["entity"], hook["action"], hook.get("alias")) != ("model_version_alias", "created", CHALLENGER):
        return f"{hook['entity']} {hook['action']}: nothing to do"
    address = f"{settings.api}/repos/{settings.repository}/dispatches"
    headers = {"Authorization": f"Bearer {settings.token}", "Accept": "application/vnd.github+json"}
    asked: Any = {"event_type": EVENT, "client_payload": {key: str(hook[key]) for key in ("name", "version")}}
    try:
        requests.post(address, json=asked, headers=headers, timeout=20).raise_for_status()
    except requests.RequestException as error:
        raise HTTPException(502, f"GitHub did not take the dispatch: {type(error).__name__}") from error
    return f"dispatched {EVENT} for {hook['name']} version {hook['version']}"


def make_relay(settings: Settings) -> FastAPI:
    """The relay as an application: `POST /hooks/mlflow`, and `GET /health`; a decision is recorded, then answered."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    seen = {known["delivery"] for known in read_decisions(settings.log) if known["accepted"]}
    settings.log.parent.mkdir(parents=True, exist_ok=True)
    app.get("/health")(lambda: {"status": "ok"})

    @app.post(PATH)
    async def hook(request: Request) -> JSONResponse:
        delivery, status = request.headers.get("x-mlflow-delivery-id", ""), 202
        try:
            if int(request.headers.get("content-length") or _MAX_BODY + 1) > _MAX_BODY:
                raise HTTPException(413, "the body is too long, or its length is not said")
            content = _read_hook(request.headers, await request.body(), settings)
            if delivery in seen:
                raise HTTPException(409, "this delivery was seen before")
            seen.add(delivery)  # before GitHub is asked: the same may come meanwhile
            what = await run_in_threadpool(_pass_on, content, settings)
        except HTTPException as error:
            what, status = error.detail, error.status_code
        if status == 502:  # not passed on: it may come again
            seen.remove(delivery)
        line = {"time": time.time(), "delivery": delivery[:80], "accepted": status == 202, "what": what}
        with settings.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        return JSONResponse({"accepted" if status == 202 else "refused": what}, status)

    return app


def connect(client: MlflowClient, relay: str, secret: str) -> None:
    """Have MLflow send its hooks to a relay at an address (without the path), once."""
    for known in client.list_webhooks():
        if known.url == relay + PATH:
            client.delete_webhook(known.webhook_id)
    client.create_webhook("relay", relay + PATH, ["model_version_alias.created"], secret=secret)


def serve_in_thread(app: FastAPI) -> str:
    """The address of an application on a free port of the loopback; it answers as long as this process lives."""
    listening = socket.create_server((HOST, 0))  # from now on requests wait until they are answered
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    threading.Thread(target=server.run, args=([listening],), daemon=True).start()
    return f"http://{HOST}:{listening.getsockname()[1]}"


def main() -> None:
    """Run the relay on the loopback."""
    parser = argparse.ArgumentParser(description="Relay MLflow's hooks to GitHub Actions; secrets: the environment.")
    parser.add_argument("--port", type=int, default=5001)
    parser.add_argument("--log", type=Path, default=Path("runs/relay.jsonl"))
    args = parser.parse_args()
    uvicorn.run(make_relay(Settings.from_environment(args.log)), host=HOST, port=args.port, log_level="warning")


if __name__ == "__main__":
    main()
