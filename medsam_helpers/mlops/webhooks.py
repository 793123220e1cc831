"""From the registry to continuous integration: a relay that checks MLflow's hooks and starts a workflow on GitHub.

MLflow signs its hooks but cannot log in anywhere; GitHub wants a token, and a `repository_dispatch`.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import socket
import threading
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import requests
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from mlflow import MlflowClient
from uvicorn.protocols.http.h11_impl import H11Protocol

from medsam_helpers.errors import ConfigError, MedsamError, one_line
from medsam_helpers.mlops.gate import unjudged
from medsam_helpers.mlops.hooks import PATIENCE_S, Decisions, read_body, read_hook
from medsam_helpers.mlops.registry import CHALLENGER
from medsam_helpers.mlops.server import HOST, tracking_uri

_LOG = logging.getLogger(__name__)
EVENT, PATH = "challenger-registered", "/hooks/mlflow"


@dataclass
class Settings:
    """What the relay needs to know.

    Args:
        secret: shared with MLflow's webhook.
        token: of GitHub, allowed to write contents of the repository (OWNER/NAME).
        log: file of decisions, JSON lines for the eyes of its owner; a restart knows from it what was accepted.
        api: of GitHub, or of a GitHub server of one's own.
        tolerance_s: greatest difference of a hook's time from now, in seconds.
        registry: address of MLflow, asked for challengers that no hook told of, every `ask_every_s`; None asks nobody.
    """

    secret: str = field(repr=False)
    token: str = field(repr=False)
    repository: str
    log: Path
    api: str = "https://api.github.com"
    tolerance_s: int = 300
    registry: str | None = None
    ask_every_s: float = 600

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
        api = os.environ.get("GITHUB_API_URL", cls.api)
        return cls(secret, token, repository, log, api, registry=tracking_uri())


def _dispatch(settings: Settings, name: str, version: str) -> None:
    """Ask GitHub for a `repository_dispatch`; `RequestException` if it did not take that."""
    address = f"{settings.api}/repos/{settings.repository}/dispatches"
    headers = {"Authorization": f"Bearer {settings.token}", "Accept": "application/vnd.github+json"}
    asked: Any = {"event_type": EVENT, "client_payload": {"name": name, "version": version}}
    requests.post(address, json=asked, headers=headers, timeout=20).raise_for_status()


def make_relay(settings: Settings) -> FastAPI:
    """The relay as an application: `POST /hooks/mlflow`, and `GET /health`.

    Each new challenger reaches the workflow at least once: a decision is recorded before it is done, and on start and
    every ten minutes the registry is asked for challengers without a verdict, since a hook that finds nobody is lost.
    A version that was passed on within the hour is not passed on again for that.
    """
    log = Decisions(settings.log)

    async def pass_on(delivery: str, name: str, version: str) -> str:
        what = f"dispatched {EVENT} for {name} version {version}"
        log.accept(delivery, what, (name, version))
        try:
            await run_in_threadpool(_dispatch, settings, name, version)
        except requests.RequestException as error:
            log.fail(delivery, why := f"GitHub did not take the dispatch: {type(error).__name__}")
            raise HTTPException(502, why) from error
        return what

    async def catch_up() -> None:
        while settings.registry:
            try:
                for model in await run_in_threadpool(unjudged, MlflowClient(settings.registry)):
                    if not log.lately(model):
                        await pass_on(f"registry {uuid.uuid4()}", *model)
            except Exception as error:  # the registry or GitHub may be there next time
                _LOG.warning("challengers without a verdict: %s", one_line(error))
            await asyncio.sleep(settings.ask_every_s)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        asking = asyncio.create_task(catch_up())
        yield
        asking.cancel()
        log.count()

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.get("/health")(lambda: {"status": "ok"})

    @app.post(PATH)
    async def hook(request: Request) -> JSONResponse:
        delivery = request.headers.get("x-mlflow-delivery-id", "")
        try:
            body = await read_body(request)
            happened, new = read_hook(request.headers, body, settings.secret, settings.tolerance_s)
            if new and new.alias == CHALLENGER:
                return JSONResponse({"accepted": await pass_on(delivery, new.name, new.version)}, 202)
            log.accept(delivery, what := f"{happened}: nothing to do")
            return JSONResponse({"accepted": what}, 202)
        except HTTPException as error:
            if error.status_code != 502:  # that is recorded already
                log.refuse(delivery, error.detail)
            return JSONResponse({"refused": error.detail}, error.status_code)

    return app


def connect(client: MlflowClient, relay: str, secret: str) -> None:
    """Have MLflow send its hooks to a relay at an address (without the path), once."""
    for known in client.list_webhooks():
        if known.url == relay + PATH:
            client.delete_webhook(known.webhook_id)
    client.create_webhook("relay", relay + PATH, ["model_version_alias.created"], secret=secret)


class _Hasty(H11Protocol):
    """Closes a connection that does not say within the time what it asks for."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.loop.call_later(PATIENCE_S, lambda: self.cycle or transport.close())


def _config(app: FastAPI, **options: Any) -> uvicorn.Config:
    """How an application is served: a connection for each request."""
    return uvicorn.Config(app, http=_Hasty, headers=[("connection", "close")], **options)


def serve_in_thread(app: FastAPI) -> str:
    """The address of an application on a free port of the loopback; it answers as long as this process lives."""
    listening = socket.create_server((HOST, 0))  # from now on requests wait until they are answered
    # Without a log_config: to set that up for one server would let the others talk for a moment.
    server = uvicorn.Server(_config(app, log_level="error", log_config=None))
    threading.Thread(target=server.run, args=([listening],), daemon=True).start()
    return f"http://{HOST}:{listening.getsockname()[1]}"


def main() -> None:
    """Run the relay on the loopback."""
    parser = argparse.ArgumentParser(description="Relay MLflow's hooks to GitHub Actions; secrets: the environment.")
    parser.add_argument("--port", type=int, default=5001)
    parser.add_argument("--log", type=Path, default=Path("runs/relay.jsonl"))
    args = parser.parse_args()
    try:
        app = make_relay(Settings.from_environment(args.log))
    except MedsamError as error:
        parser.exit(2, f"{parser.prog}: {one_line(error)}\n")
    uvicorn.Server(_config(app, host=HOST, port=args.port, log_level="warning")).run()


if __name__ == "__main__":
    main()
