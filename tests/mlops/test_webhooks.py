"""Automation: a challenger in the registry starts a workflow, hooks hurry that up, all other requests are refused."""

import logging
import socket
import sys
import time
from dataclasses import replace
from typing import Annotated
from urllib.parse import urlsplit

import pytest
import requests
from fastapi import FastAPI, Header, HTTPException

from medsam_helpers.mlops import webhooks
from medsam_helpers.mlops.server import wait_until
from medsam_helpers.mlops.webhooks import DISPATCHED, EVENT, PATH, Settings, make_relay, pass_on, serve_in_thread, sign

SECRET, TOKEN, REPOSITORY = "a secret of this test", "a token of this test", "someone/something"


@pytest.fixture
def asked():
    """Models that GitHub was asked for; those of other tests wait in the registry too."""
    return []


@pytest.fixture
def settings(asked, mlflow_server, monkeypatch):
    monkeypatch.setattr(webhooks, "_LOOK_EVERY_S", 1e5)  # the relays of the other tests live on
    app = FastAPI()

    @app.post(f"/repos/{REPOSITORY}/dispatches", status_code=204)
    async def dispatch(payload: dict, authorization: Annotated[str, Header()]) -> None:
        if authorization != f"Bearer {TOKEN}":
            raise HTTPException(404)  # as GitHub does
        name = payload["client_payload"]["name"]
        assert payload == {"event_type": EVENT, "client_payload": {"name": name, "version": "1"}}
        asked.append(name)

    return Settings(SECRET, TOKEN, REPOSITORY, mlflow_server.uri, serve_in_thread(app))


def challenge(client, name):
    run_id = client.create_run("0").info.run_id
    client.create_registered_model(name)
    client.create_model_version(name, f"runs:/{run_id}/x", run_id, await_creation_for=0)
    client.set_registered_model_alias(name, "challenger", "1")


def send(relay, at=None, *, secret=SECRET, altered=b""):
    at = at or str(int(time.time()))
    headers = {"Delivery-Id": "d-1", "Timestamp": at, "Signature": sign(secret, "d-1", at, b"{}")}
    headers = {f"X-MLflow-{name}": value.encode("latin-1") for name, value in headers.items()}
    return requests.post(relay + PATH, data=b"{}" + altered, headers=headers, timeout=60)


def test_a_challenger_is_passed_on_once_an_hour_until_it_has_a_verdict(client, asked, settings):
    challenge(client, "hourly")
    for minutes, times in ((10**6, 1), (59, 1), (61, 2), (-61, 3)):
        client.set_model_version_tag("hourly", "1", DISPATCHED, str(time.time() - 60 * minutes))
        pass_on(settings)
        assert asked.count("hourly") == times
    client.set_model_version_tag("hourly", "1", DISPATCHED, "0")
    client.set_model_version_tag("hourly", "1", "medsam.verdict.1", "{}")
    pass_on(settings)
    assert asked.count("hourly") == 3


def test_a_lost_or_repeated_hook_does_no_harm(client, asked, settings):
    challenge(client, "lost")
    relay = serve_in_thread(make_relay(settings))
    assert wait_until(lambda: "lost" in asked), "no hook told of it"
    challenge(client, "told")
    assert {send(relay).status_code for _ in range(20)} == {202}
    assert wait_until(lambda: DISPATCHED in client.get_model_version("told", "1").tags)
    pass_on(settings)  # as a relay that was started anew
    assert [asked.count(name) for name in ("lost", "told")] == [1, 1]


def test_what_fails_is_said_without_the_token_holds_nobody_up_and_is_tried_again(client, asked, settings, caplog):
    for name in ("a b", "held"):
        challenge(client, name)
    for change in ({"token": "another"}, {"token": "a\nbroken token"}, {"api": "http://127.0.0.1:9"}):
        pass_on(replace(settings, **change))
    for why in ("HTTPError 404", "InvalidHeader", "ConnectionError"):
        assert f"'held' version 1 waits: GitHub did not take it: {why}" in caplog.text
    assert "'a b' version 1 waits: 'a b' is no name" in caplog.text
    assert "broken token" not in caplog.text
    pass_on(settings)
    assert "held" in asked


def test_a_forged_or_stale_hook_is_refused_and_wakes_nobody(settings, monkeypatch, caplog):
    looks, now = [], int(time.time())
    monkeypatch.setattr(webhooks, "pass_on", looks.append)
    relay = serve_in_thread(make_relay(settings))
    assert wait_until(lambda: looks)
    forged = [send(relay, secret="another secret"), send(relay, altered=b" ")]
    stale = [send(relay, at) for at in (str(now - 301), str(now + 400), "²", "1" * 5000, "-1", f"{now}.0")]
    for answers, reason in ((forged, "the signature does not fit"), (stale, "the time is too far from now")):
        assert {(answer.status_code, answer.json()["detail"]) for answer in answers} == {(401, reason)}
        assert caplog.messages.count(f"refused a hook: {reason}") == len(answers)
    assert [send(relay, str(now - 290)).status_code, wait_until(lambda: len(looks) > 1), len(looks)] == [202, True, 2]


@pytest.mark.parametrize(("length", "body", "status"), [(10, b"half", b"408"), (2_000_000, b"x" * 1_000_001, b"413")])
def test_a_request_is_held_neither_in_memory_nor_for_ever(settings, monkeypatch, length, body, status):
    monkeypatch.setattr(webhooks, "_PATIENCE_S", 0.5)
    address = urlsplit(serve_in_thread(make_relay(settings)))
    with socket.create_connection((address.hostname, address.port), timeout=60) as sending:
        sending.sendall(f"POST {PATH} HTTP/1.1\r\nHost: relay\r\nContent-Length: {length}\r\n\r\n".encode() + body)
        answer = b"".join(iter(lambda: sending.recv(4096), b""))  # until it is closed
    assert answer[9:12] == status


def test_a_hook_of_mlflow_wakes_the_relay(client, asked, settings, mlflow_server, monkeypatch, caplog):
    relay = serve_in_thread(make_relay(settings))
    hook = client.create_webhook("relay", relay + PATH, ["model_version_alias.created"], secret=SECRET)
    mlflow_server.stop()
    send(relay)  # the registry is away
    assert wait_until(lambda: "cannot look into the registry" in caplog.text)
    mlflow_server.start()
    challenge(client, "hooked")
    assert wait_until(lambda: "hooked" in asked), "the hook did not arrive"
    client.delete_webhook(hook.webhook_id)
    monkeypatch.setattr(webhooks, "_LOOK_EVERY_S", 0.1)
    send(relay)
    challenge(client, "unheard")
    assert wait_until(lambda: "unheard" in asked), "it was not found without a hook"
    monkeypatch.setattr(webhooks, "_LOOK_EVERY_S", 1e5)


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


def test_a_server_in_a_thread_leaves_the_logging_of_the_others_as_it_is(monkeypatch):
    """Setting up one server's logging let another, that was just starting, write to the screen."""
    changed = []
    monkeypatch.setattr(logging.getLogger("uvicorn.error"), "setLevel", changed.append)
    serve_in_thread(FastAPI())
    assert set(changed) <= {logging.ERROR}
