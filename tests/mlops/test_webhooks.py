"""Automation: a challenger in the registry starts a workflow, hooks hurry that up, all other requests are refused."""

import logging
import re
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import pytest
import requests
import yaml
from fastapi import FastAPI, Header, HTTPException
from mlflow import MlflowClient

from medsam_helpers.mlops import gate, webhooks
from medsam_helpers.mlops.server import wait_until
from medsam_helpers.mlops.webhooks import DISPATCHED, EVENT, PATH, Settings, make_relay, pass_on, serve_in_thread, sign

ROOT = Path(__file__).parents[2]
SECRET, TOKEN, REPOSITORY = "a secret of this test", "a token of this test", "someone/something"


class GitHub:
    """What GitHub does with a dispatch: takes one that is allowed, and answers 404 to a wrong token."""

    def __init__(self):
        app, self.payloads = FastAPI(), []

        @app.post(f"/repos/{REPOSITORY}/dispatches", status_code=204)
        async def dispatch(payload: dict, authorization: Annotated[str, Header()]) -> None:
            if authorization != f"Bearer {TOKEN}":
                raise HTTPException(404)
            self.payloads.append(payload)

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


def send(relay, *, age_s=0, at=None, secret=SECRET, altered=b""):
    timestamp = at or str(int(time.time() - age_s))
    told = {"Delivery-Id": "d-1", "Timestamp": timestamp, "Signature": sign(secret, "d-1", timestamp, b"{}")}
    headers = {f"X-MLflow-{name}": value.encode("latin-1") for name, value in told.items()}
    return requests.post(relay + PATH, data=b"{}" + altered, headers=headers, timeout=60)


def test_a_challenger_is_passed_on_once_however_often_a_hook_comes_or_the_relay_starts(client, github, settings):
    challenge(client, "early")
    relay = serve_in_thread(make_relay(settings))
    assert wait_until(lambda: github.asked("early")), "no hook told of it"
    challenge(client, "next")
    assert {send(relay).status_code for _ in range(20)} == {202}
    assert wait_until(lambda: DISPATCHED in client.get_model_version("next", "1").tags)
    challenge(client, "last")
    assert send(serve_in_thread(make_relay(settings))).status_code == 202
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


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"secret": "another secret"}, "the signature does not fit"),
        ({"altered": b" "}, "the signature does not fit"),
        *(({"age_s": age_s}, "the time is too far from now") for age_s in (301, -302)),
        *(({"at": at}, "the time is too far from now") for at in ("²", "1" * 5000, "-1", "1e9")),
    ],
)
def test_a_forged_or_stale_hook_is_refused_and_wakes_nobody(settings, monkeypatch, caplog, options, reason):
    looks = []
    monkeypatch.setattr(webhooks, "pass_on", looks.append)
    relay = serve_in_thread(make_relay(settings))
    assert wait_until(lambda: looks)
    answer = send(relay, **options)
    assert (answer.status_code, answer.json()) == (401, {"detail": reason})
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


def test_mlflow_s_own_hook_wakes_the_relay_and_the_registry_may_be_away(
    client, github, settings, mlflow_server, monkeypatch, caplog
):
    relay = serve_in_thread(make_relay(settings))
    hook = client.create_webhook("relay", relay + PATH, ["model_version_alias.created"], secret=SECRET)
    challenge(client, "hooked")
    assert wait_until(lambda: github.asked("hooked")), "the hook did not arrive"
    mlflow_server.stop()
    send(relay)
    assert wait_until(lambda: "cannot look into the registry" in caplog.text)
    mlflow_server.start()
    challenge(client, "hooked", "2")
    assert wait_until(lambda: github.asked("hooked", "2")), "the hook did not arrive"
    client.delete_webhook(hook.webhook_id)
    monkeypatch.setattr(webhooks, "_LOOK_EVERY_S", 0.1)
    send(relay)
    challenge(client, "unheard")
    assert wait_until(lambda: github.asked("unheard")), "it was not asked for without a hook"
    monkeypatch.undo()  # the relay lives on, and need not look all the time


def test_secrets_come_from_the_environment_and_are_not_shown(monkeypatch, capsys):
    made, names = [], ("WEBHOOK_SECRET", "DISPATCH_TOKEN", "DISPATCH_REPOSITORY")
    monkeypatch.setattr(sys, "argv", ["relay"])
    monkeypatch.setattr(webhooks, "make_relay", made.append)
    monkeypatch.setattr(webhooks.uvicorn, "run", lambda app, *, host, **_: made.append(host))
    for name, value in zip(names, ("", TOKEN, REPOSITORY), strict=True):
        monkeypatch.setenv(f"MEDSAM_{name}", value)
    with pytest.raises(SystemExit, match="2"):
        webhooks.main()
    assert capsys.readouterr().err == "relay: set MEDSAM_WEBHOOK_SECRET in the environment\n"
    monkeypatch.setenv("MEDSAM_WEBHOOK_SECRET", SECRET)
    webhooks.main()
    assert made == [Settings(SECRET, TOKEN, REPOSITORY, webhooks.tracking_uri()), "127.0.0.1"]
    assert not [kept for kept in (SECRET, TOKEN) if kept in repr(made)]


def test_the_workflow_listens_to_the_relay_and_knows_the_gate_s_options(monkeypatch, capsys):
    workflow = yaml.safe_load((ROOT / ".github/workflows/evaluate-and-promote.yml").read_text())
    assert workflow[True]["repository_dispatch"]["types"] == [EVENT]  # YAML 1.1 reads `on` as true
    monkeypatch.setattr(sys, "argv", ["gate", "--help"])
    with pytest.raises(SystemExit):
        gate.main()
    asked = set(re.findall(r"--\w+", workflow["jobs"]["gate"]["steps"][-1]["run"]))
    assert {"--version", "--data"} <= asked <= set(re.findall(r"--\w+", capsys.readouterr().out))


def test_a_server_in_a_thread_leaves_the_logging_of_the_others_as_it_is(monkeypatch):
    """Setting up one server's logging let another, that was just starting, write to the screen."""
    changed = []
    monkeypatch.setattr(logging.getLogger("uvicorn.error"), "setLevel", changed.append)
    serve_in_thread(FastAPI())
    assert set(changed) <= {logging.ERROR}
