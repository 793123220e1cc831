"""From the registry to continuous integration: a relay that has GitHub judge each new challenger.

MLflow signs its hooks but cannot log in anywhere; GitHub wants a token, and a `repository_dispatch`. What is to be done
stands in the registry alone, and a hook only says that it is time to look: a lost, repeated or late one does no harm.
"""

import argparse
import asyncio
import base64
import hashlib
import hmac
import logging
import os
import re
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import requests
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from mlflow import MlflowClient
from starlette.requests import ClientDisconnect

from medsam_helpers.errors import MedsamError, one_line
from medsam_helpers.mlops.gate import unjudged
from medsam_helpers.mlops.registry import check_model_name
from medsam_helpers.mlops.server import HOST, tracking_uri

_LOG = logging.getLogger(__name__)
EVENT, PATH = "challenger-registered", "/hooks/mlflow"
DISPATCHED = "medsam.dispatched"  # tag of a version: when it was passed on, in seconds since 1970
TOLERANCE_S = 300  # greatest difference of a hook's time from now
_LOOK_EVERY_S, _AGAIN_AFTER_S, _PATIENCE_S, _LONGEST_BODY = 600, 3600, 20, 1_000_000
_SERVED: dict[str, Any] = {"limit_concurrency": 100, "headers": [("connection", "close")]}  # a request a connection


@dataclass(frozen=True)
class Settings:
    """What the relay needs to know."""

    secret: str = field(repr=False)  # shared with MLflow's webhook
    token: str = field(repr=False)  # of GitHub, allowed to write contents of the repository
    repository: str  # OWNER/NAME
    registry: str  # address of MLflow
    api: str = "https://api.github.com"  # or a GitHub server of one's own


def sign(secret: str, delivery: str, timestamp: str, body: bytes) -> str:
    """The signature of a delivery's id, its time (seconds since 1970) and body, as MLflow's page "Webhooks" has it.

    >>> sign("secret", "1", "2", b"{}")
    'v1,72EbzgLDv52tyOY4YC27IQSjiGr5nutKKXvEM56cM3U='
    """
    signed = f"{delivery}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest()).decode()


async def _check(request: Request, secret: str) -> None:
    """Refuse a hook that is forged or stale (401), too long (413), or does not come whole (408)."""
    told = (request.headers.get(f"x-mlflow-{name}", "") for name in ("delivery-id", "timestamp", "signature"))
    (delivery, timestamp, signature), body = told, b""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            async for part in request.stream():  # counted as it comes, whatever its header says
                body += part
                if len(body) > _LONGEST_BODY:
                    raise HTTPException(413, "the body is too long")
    except (TimeoutError, ClientDisconnect) as error:
        raise HTTPException(408, "the body did not come whole in time") from error
    if not hmac.compare_digest(sign(secret, delivery, timestamp, body).encode(), signature.encode()):
        raise HTTPException(401, "the signature does not fit")
    if not re.fullmatch("[0-9]{1,12}", timestamp) or abs(time.time() - int(timestamp)) > TOLERANCE_S:
        raise HTTPException(401, "the time is too far from now")


def _dispatch(settings: Settings, name: str, version: str) -> None:
    """Have GitHub start the workflow; `MedsamError` if it does not take that."""
    address = f"{settings.api}/repos/{settings.repository}/dispatches"
    headers = {"Authorization": f"Bearer {settings.token}", "Accept": "application/vnd.github+json"}
    asked: Any = {"event_type": EVENT, "client_payload": {"name": name, "version": version}}
    try:
        requests.post(address, json=asked, headers=headers, timeout=20).raise_for_status()
    except requests.RequestException as error:  # its text may hold the token
        status = "" if error.response is None else error.response.status_code
        raise MedsamError(f"GitHub did not take it: {type(error).__name__} {status}") from None


def pass_on(settings: Settings) -> None:
    """Ask GitHub to judge each challenger that has no verdict and was not passed on within the hour.

    What fails is logged, and tried again next time. The tag follows the dispatch: better twice than not at all.
    """
    client = MlflowClient(settings.registry)
    for model in unjudged(client):
        try:
            if abs(time.time() - float(model.tags.get(DISPATCHED, 0))) > _AGAIN_AFTER_S:
                _dispatch(settings, check_model_name(model.name), model.version)
                client.set_model_version_tag(model.name, model.version, DISPATCHED, str(round(time.time())))
        except Exception as error:  # the others need not wait
            _LOG.warning("%r version %s waits: %s", model.name, model.version, one_line(error))


def make_relay(settings: Settings) -> FastAPI:
    """The relay, `POST /hooks/mlflow`; a thread calls `pass_on`: now, after each genuine hook, every ten minutes."""
    hook_came = threading.Event()

    def keep_looking() -> None:
        while True:
            hook_came.clear()  # a hook that comes from now on may tell of what this look misses
            try:
                pass_on(settings)
            except Exception as error:  # the registry may be there next time
                _LOG.warning("cannot look into the registry: %s", one_line(error))
            hook_came.wait(_LOOK_EVERY_S)

    threading.Thread(target=keep_looking, daemon=True).start()
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.post(PATH, status_code=202)
    async def hook(request: Request) -> dict[str, str]:
        try:
            await _check(request, settings.secret)
        except HTTPException as error:
            _LOG.warning("refused a hook: %s", error.detail)
            raise
        hook_came.set()
        return {"detail": "the registry will be asked"}

    return app


def serve_in_thread(app: FastAPI) -> str:
    """The address of an application on a free port of the loopback; it answers as long as this process lives."""
    listening = socket.create_server((HOST, 0))  # from now on requests wait until they are answered
    # Without a log_config: to set that up for one server would let the others talk for a moment.
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", log_config=None, **_SERVED))
    threading.Thread(target=server.run, args=([listening],), daemon=True).start()
    return f"http://{HOST}:{listening.getsockname()[1]}"


def main() -> None:
    """Run the relay on the loopback; stderr tells what it refuses, and which challenger waits for what."""
    needed = [f"MEDSAM_{name}" for name in ("WEBHOOK_SECRET", "DISPATCH_TOKEN", "DISPATCH_REPOSITORY")]
    told = f"From MLflow's hooks to GitHub Actions. In the environment: {', '.join(needed)}; GITHUB_API_URL."
    parser = argparse.ArgumentParser(description=told)
    parser.add_argument("--port", type=int, default=5001)
    args = parser.parse_args()
    if missing := [name for name in needed if not os.environ.get(name)]:
        parser.exit(2, f"{parser.prog}: set {' and '.join(missing)} in the environment\n")
    secret, token, repository = (os.environ[name] for name in needed)
    settings = Settings(secret, token, repository, tracking_uri(), os.environ.get("GITHUB_API_URL", Settings.api))
    uvicorn.run(make_relay(settings), host=HOST, port=args.port, log_level="warning", **_SERVED)


if __name__ == "__main__":
    main()
