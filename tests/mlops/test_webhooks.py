"""Automation: a challenger in the registry starts a workflow, hooks hurry that up, and every other request is refused."""

import json
import logging
import re
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import pytest
import requests
import yaml
from fastapi import FastAPI, Header, Response
from mlflow import MlflowClient

from medsam_helpers.mlops import gate, webhooks
from medsam_helpers.mlops.server import wait_until
from medsam_helpers.mlops.webhooks import DISPATCHED, EVENT, PATH, Settings, make_relay, pass_on, serve_in_thread, sign

WORKFLOW = Path(__file__).parents[2] / ".github" / "workflows" / "evaluate-and-promote.yml"
SECRET, TOKEN, REPOSITORY = "a secret of this test", "a token of this test", "someone/something"


class GitHub:
    """What GitHub does with a dispatch: 204 for one that is allowed, 404 for a wrong token."""

    def __init__(self):
        app, self.payloads = FastAPI(), []

        @app.post(f"/repos/{REPOSITORY}/dispatches")
        async def dispatch(payload: dict, authorization: Annotated[str, Header()]) -> Response:
            if authorization != f"Bearer {TOKEN}":
                return Response(status_code=404)
            self.payloads.append(payload)
            return Response(status_code=204)

        self.uri = serve_in_thread(app)

    def asked(self, name, version="1"):
        """How often it was asked for a version; models of other tests wait in the registry too."""
        return self.payloads.count({"event_type": EVENT, "client_payload": {"name": name, "version": version}})


@pytest.fixture
def github():
    return GitHub()


@pytest.fixture
def client(mlflow_server):
    return MlflowClient(mlflow_server.uri)


@pytest.fixture
def settings(github, client):
    return Settings(SECRET, TOKEN, REPOSITORY, client.tracking_uri, github.uri)


def challenge(client, name, version="1"):
    run_id = client.create_run("0").info.run_id
    if version == "1":
        client.create_registered_model(name)
    client.create_model_version(name, f"runs:/{run_id}/x", run_id, await_creation_for=0)
    client.set_registered_model_alias(name, "challenger", version)


def send(relay, content=b"{}", *, age_s=0, at=None, secret=SECRET, change=lambda body: body):
    timestamp = at or str(int(time.time() - age_s))
    told = {"Delivery-Id": "d-1", "Timestamp": timestamp, "Signature": sign(secret, "d-1", timestamp, content)}
    headers = {f"X-MLflow-{name}": value.encode("latin-1") for name, value in told.items()}
    return requests.post(relay + PATH, data=change(content), headers=headers, timeout=60)


def test_a_challenger_is_passed_on_once_however_often_hooks_come_or_the_relay_starts(client, github, settings):
    challenge(client, "early")
    relay = serve_in_thread(make_relay(settings))
    assert wait_until(lambda: github.asked("early")), "no hook told of it"
    challenge(client, "next")
    assert [send(relay).status_code for _ in range(20)] == [202] * 20, "whatever it says"
    assert wait_until(lambda: DISPATCHED in client.get_model_version("next", "1").tags)
    restarted = serve_in_thread(make_relay(settings))
    challenge(client, "last")
    assert send(restarted).status_code == 202
    assert wait_until(lambda: DISPATCHED in client.get_model_version("last", "1").tags)
    assert [github.asked(name) for name in ("early", "next", "last")] == [1, 1, 1]


def test_without_a_verdict_it_is_passed_on_again_after_an_hour(client, github, settings):
    challenge(client, "hourly")
    for minutes, asked in ((59, 0), (61, 1), (-61, 2)):
        client.set_model_version_tag("hourly", "1", DISPATCHED, str(time.time() - 60 * minutes))
        pass_on(settings)
        assert github.asked("hourly") == asked
    client.set_model_version_tag("hourly", "1", DISPATCHED, "0")
    client.set_model_version_tag("hourly", "1", "medsam.verdict.1", "{}")
    pass_on(settings)
    assert github.asked("hourly") == 2


def test_what_fails_is_said_without_the_token_holds_nobody_up_and_is_tried_again(client, github, settings, caplog):
    for name in ("a b", "held"):
        challenge(client, name)
    for token in ("another token", "a\nbroken token"):
        pass_on(replace(settings, token=token))
    pass_on(replace(settings, api="http://127.0.0.1:9"))
    for why in ("HTTPError 404", "InvalidHeader", "ConnectionError"):
        assert f"'held' version 1 waits: GitHub did not take it: {why}" in caplog.text
    assert "broken token" not in caplog.text
    pass_on(settings)
    assert github.asked("held") == 1
    assert "'a b' version 1 waits: 'a b' is no name" in caplog.text


def test_a_registry_that_was_away_is_asked_again(client, github, settings, mlflow_server, monkeypatch, caplog):
    monkeypatch.setattr(webhooks, "_LOOK_EVERY_S", 0.1)
    mlflow_server.stop()
    make_relay(settings)
    assert wait_until(lambda: "cannot look into the registry" in caplog.text)
    mlflow_server.start()
    challenge(client, "patient")
    assert wait_until(lambda: github.asked("patient"))
    monkeypatch.undo()  # this relay lives on, and need not look all the time


@pytest.mark.parametrize(
    ("options", "status", "reason"),
    [
        ({"secret": "another secret"}, 401, "the signature does not fit"),
        ({"change": lambda body: body + b" "}, 401, "the signature does not fit"),
        ({"age_s": 301}, 401, "the time is too far from now"),
        ({"age_s": -302}, 401, "the time is too far from now"),
        *(({"at": at}, 401, "the time is too far from now") for at in ("²", "1" * 5000, "-1", "1e9")),
        ({"content": b"x" * 1_000_001, "change": lambda body: iter([body])}, 413, "the body is too long"),
    ],
)
def test_a_hook_that_is_not_genuine_or_not_fresh_is_refused_and_wakes_nobody(
    settings, monkeypatch, caplog, options, status, reason
):
    looks = []
    monkeypatch.setattr(webhooks, "pass_on", looks.append)
    relay = serve_in_thread(make_relay(settings))
    assert wait_until(lambda: looks)
    answer = send(relay, **options)
    assert (answer.status_code, answer.json()) == (status, {"detail": reason})
    assert caplog.messages == [f"refused a hook: {reason}"]
    assert send(relay).status_code == 202
    assert wait_until(lambda: len(looks) > 1)
    assert len(looks) == 2


@pytest.mark.parametrize(("length", "body", "status"), [(10, b"half", b"408"), (2_000_000, b"x" * 1_000_001, b"413")])
def test_a_request_is_held_neither_in_memory_nor_for_ever(settings, monkeypatch, length, body, status):
    monkeypatch.setattr(webhooks, "_PATIENCE_S", 0.5)
    address = urlsplit(serve_in_thread(make_relay(settings)))
    with socket.create_connection((address.hostname, address.port), timeout=60) as sending:
        sending.sendall(f"POST {PATH} HTTP/1.1\r\nHost: relay\r\nContent-Length: {length}\r\n\r\n".encode() + body)
        answer = b"".join(iter(lambda: sending.recv(4096), b""))  # until it is closed
    assert answer[9:12] == status


def test_a_hook_of_mlflow_wakes_the_relay_after_a_restart_of_the_server_too(client, github, settings, mlflow_server):
    relay = serve_in_thread(make_relay(settings))
    hook = client.create_webhook("relay", relay + PATH, ["model_version_alias.created"], secret=SECRET)
    challenge(client, "hooked")
    assert wait_until(lambda: github.asked("hooked")), "the hook did not arrive"
    mlflow_server.stop()
    mlflow_server.start()
    challenge(client, "hooked", "2")
    assert wait_until(lambda: github.asked("hooked", "2")), "the hook did not arrive"
    client.delete_webhook(hook.webhook_id)


def test_secrets_come_from_the_environment_and_are_not_shown(monkeypatch, capsys):
    for name, value in (("DISPATCH_TOKEN", TOKEN), ("DISPATCH_REPOSITORY", REPOSITORY), ("WEBHOOK_SECRET", "")):
        monkeypatch.setenv(f"MEDSAM_{name}", value)
    monkeypatch.setattr(sys, "argv", ["relay"])
    with pytest.raises(SystemExit, match="2"):
        webhooks.main()
    assert capsys.readouterr().err == "relay: set MEDSAM_WEBHOOK_SECRET in the environment\n"
    monkeypatch.setenv("MEDSAM_WEBHOOK_SECRET", SECRET)
    made = []
    monkeypatch.setattr(webhooks, "make_relay", made.append)
    monkeypatch.setattr(webhooks.uvicorn, "run", lambda app, *, host, **_: made.append(host))
    webhooks.main()
    settings, host = made
    assert (settings.secret, settings.token, settings.repository, host) == (SECRET, TOKEN, REPOSITORY, "127.0.0.1")
    assert not [kept for kept in (SECRET, TOKEN) if kept in repr(settings)]


def test_the_workflow_is_valid_listens_to_the_relay_and_puts_nothing_of_it_into_a_command(monkeypatch, capsys):
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", WORKFLOW]
    assert subprocess.run(check, check=False, capture_output=True).returncode == 0
    workflow = yaml.safe_load(WORKFLOW.read_text())
    assert workflow[True]["repository_dispatch"]["types"] == [EVENT]  # YAML 1.1 reads `on` as true
    commands = [step["run"] for step in workflow["jobs"]["gate"]["steps"] if "run" in step]
    assert not [command for command in commands if "${{" in command]
    (asked,) = [command for command in commands if "medsam_helpers.mlops.gate" in command]
    monkeypatch.setattr(sys, "argv", ["gate", "--help"])
    with pytest.raises(SystemExit):
        gate.main()
    assert set(re.findall(r"--\w+", asked)) <= set(re.findall(r"--\w+", capsys.readouterr().out))


def test_a_server_in_a_thread_leaves_the_logging_of_the_others_as_it_is():
    """Setting up one server's logging let another, that was just starting, write to the screen."""
    logger, changed = logging.getLogger("uvicorn.error"), []
    serve_in_thread(FastAPI())
    logger.setLevel = lambda level: changed.append(level) or type(logger).setLevel(logger, level)
    try:
        serve_in_thread(FastAPI())
    finally:
        del logger.setLevel
    assert set(changed) <= {logging.ERROR}
