"""Automation: a signed hook of a real server starts a workflow, every other request is refused and logged."""

import errno
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

from medsam_helpers.mlops import gate, hooks, webhooks
from medsam_helpers.mlops.hooks import read_decisions, sign
from medsam_helpers.mlops.server import wait_until
from medsam_helpers.mlops.webhooks import EVENT, PATH, Settings, make_relay, serve_in_thread

WORKFLOW = Path(__file__).parents[2] / ".github" / "workflows" / "evaluate-and-promote.yml"
SECRET, TOKEN, REPOSITORY = "a secret of this test", "a token of this test", "someone/something"
MODEL = {"name": "breast", "alias": "challenger", "version": "7"}
ALIAS_SET = {"entity": "model_version_alias", "action": "created", "data": MODEL}
CHAMPION_SET = ALIAS_SET | {"data": MODEL | {"alias": "champion"}}


class GitHub:
    """What GitHub does with a dispatch: 204 for one that is allowed, 404 for a wrong token."""

    def __init__(self):
        app, self.asked, self.down = FastAPI(), [], False

        @app.post(f"/repos/{REPOSITORY}/dispatches")
        async def dispatch(payload: dict, authorization: Annotated[str, Header()]) -> Response:
            if self.down or authorization != f"Bearer {TOKEN}":
                return Response(status_code=503 if self.down else 404)
            self.asked.append(payload)
            return Response(status_code=204)

        self.uri = serve_in_thread(app)


@pytest.fixture
def github():
    return GitHub()


@pytest.fixture
def settings(tmp_path, github):
    return Settings(SECRET, TOKEN, REPOSITORY, tmp_path / "relay.jsonl", api=github.uri)


@pytest.fixture
def relay(settings):
    return serve_in_thread(make_relay(settings))


def send(relay, content=ALIAS_SET, *, delivery="d-1", age_s=0, secret=SECRET, change=lambda body: body, at=None):
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    timestamp = at or str(int(time.time() - age_s))
    told = {"Delivery-Id": delivery, "Timestamp": timestamp, "Signature": sign(secret, delivery, timestamp, body)}
    headers = {f"X-MLflow-{name}": value.encode("latin-1") for name, value in told.items()}
    return requests.post(relay + PATH, data=change(body), headers=headers, timeout=60)


def test_a_genuine_hook_becomes_a_dispatch_once_even_after_a_restart(relay, github, settings):
    github.down = True
    assert send(relay).status_code == 502
    github.down = False  # what GitHub did not take may come again
    assert [send(relay).status_code for _ in range(2)] == [202, 409]
    assert github.asked == [{"event_type": EVENT, "client_payload": {"name": "breast", "version": "7"}}]
    restarted = serve_in_thread(make_relay(settings))
    assert [send(restarted, delivery=name).status_code for name in ("d-1", "d-2")] == [409, 202]
    assert len(github.asked) == 2
    decisions = read_decisions(settings.log)
    assert [line["kind"] for line in decisions] == ["accepted", "failed", "accepted", "refused", "refused", "accepted"]
    assert decisions[2]["what"] == f"dispatched {EVENT} for breast version 7"
    assert TOKEN not in settings.log.read_text()


@pytest.mark.parametrize(
    ("options", "status", "reason"),
    [
        ({"secret": "another secret"}, 401, "the signature does not fit"),
        ({"change": lambda body: body.replace(b'"7"', b'"8"')}, 401, "the signature does not fit"),
        ({"age_s": 301}, 401, "the time is too far from now"),
        ({"age_s": -302}, 401, "the time is too far from now"),
        ({"content": ["no hook"]}, 400, "the body is no hook of MLflow"),
        ({"change": lambda body: iter([body])}, 413, "the body is too long, or its length is not said"),
        ({"content": CHAMPION_SET}, 202, "model_version_alias created: nothing to do"),
    ],
    ids=["forged", "altered", "stale", "from the future", "nonsense", "endless", "no challenger"],
)
def test_what_starts_no_workflow_is_answered_and_logged(relay, github, settings, options, status, reason):
    answer, accepted = send(relay, **options), status == 202
    assert (answer.status_code, answer.json()) == (status, {"accepted" if accepted else "refused": reason})
    (line,) = read_decisions(settings.log)
    assert (line["kind"] == "accepted", line["what"], line["delivery"], github.asked) == (accepted, reason, "d-1", [])


def with_data(**changes):
    return ALIAS_SET | {"data": MODEL | changes}


NONSENSE = {
    "deep": b'{"a":' * 100_000,
    "data no object": ALIAS_SET | {"data": ["breast"]},
    "no name": ALIAS_SET | {"data": {"alias": "challenger", "version": "7"}},
    "a lone surrogate": json.dumps(with_data(name="\ud800")).encode(),
    "not UTF-8": b'{"entity": "\xff"}',
    "a word that is none": ALIAS_SET | {"action": "Created\n"},
    **{f"name {name[:9]!r}": with_data(name=name) for name in ("-h", "", "a b", "a\n", "..", "$(id)", "a" * 101, "é")},
    **{f"version {version[:9]!r}": with_data(version=version) for version in ("01", "0", "-1", "²", "7\n", "7" * 400)},
}


@pytest.mark.parametrize("content", NONSENSE.values(), ids=NONSENSE)
def test_signed_nonsense_is_refused_as_such(relay, github, content):
    assert send(relay, content).status_code == 400
    assert (send(relay).status_code, len(github.asked)) == (202, 1), "its delivery's id is not used up"


def test_odd_times_and_ids_are_refused_though_signed(relay, github):
    now = int(time.time())
    assert {send(relay, at=at).status_code for at in ("²", "1" * 400, "-1", f"{now}.0", f"+{now}")} == {401}
    assert {send(relay, delivery=delivery).status_code for delivery in ("d" * 81, "\x85", "")} == {400}
    assert github.asked == []


@pytest.mark.parametrize(
    ("head", "body", "status"),
    [
        ("Content-Length: 10\r\nTransfer-Encoding: chunked\r\n\r\n", b"186A0\r\n", b"413"),
        ("Content-Length: 1000001\r\n\r\n", b"x" * 1_000_001, b"413"),
        ("Content-Length: 10\r\n\r\n", b"half", b"408"),
        ("Content-Le", b"", b""),
    ],
    ids=["two lengths", "too long", "half a body", "half a head"],
)
def test_a_request_is_held_neither_in_memory_nor_for_ever(relay, monkeypatch, head, body, status):
    monkeypatch.setattr(hooks, "PATIENCE_S", 0.5)
    monkeypatch.setattr(webhooks, "PATIENCE_S", 0.5)
    address = urlsplit(relay)
    with socket.create_connection((address.hostname, address.port), timeout=60) as sending:
        sending.sendall(f"POST {PATH} HTTP/1.1\r\nHost: relay\r\n{head}".encode() + body)
        answer = b"".join(iter(lambda: sending.recv(4096), b""))  # until it is closed
    assert answer[9:12] == status


def test_a_torn_log_starts_again_and_forgets_nothing(relay, github, settings):
    assert send(relay).status_code == 202
    assert oct(settings.log.stat().st_mode)[-3:] == "600"
    with settings.log.open("ab") as file:
        file.write(b'{"kind": "accepted", "deliv\xff\x00')
    restarted = serve_in_thread(make_relay(settings))
    assert send(restarted, delivery="d-2").status_code == 202
    assert send(restarted, secret="another").status_code == 401, "a forged one takes no genuine one's place"
    assert send(restarted).status_code == 409
    again = serve_in_thread(make_relay(settings))
    assert [send(again, delivery=name).status_code for name in ("d-1", "d-2", "d-3")] == [409, 409, 202]


def test_with_a_full_disk_nothing_is_passed_on(relay, github, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(hooks.Journal, "write", full)
        assert (send(relay).status_code, send(relay, secret="another").status_code) == (507, 401)
    assert github.asked == []
    assert (send(relay).status_code, len(github.asked)) == (202, 1)


def test_refusals_do_not_fill_the_log(tmp_path, monkeypatch):
    log = hooks.Decisions(tmp_path / "log")
    for number in range(1000):
        log.refuse(f"d-{number}", "the signature does not fit")
    later = time.monotonic() + 61
    monkeypatch.setattr(time, "monotonic", lambda: later)
    log.refuse("d-1000", "the signature does not fit")
    told = [(line["delivery"], line.get("times")) for line in read_decisions(tmp_path / "log")]
    assert told == [("d-0", None), ("", 999), ("d-1000", None)]


def test_a_challenger_whose_hook_got_lost_is_found_once(github, settings, mlflow_server):
    client = MlflowClient(mlflow_server.uri)
    run_id = client.create_run("0").info.run_id

    def challenge(name):
        client.create_registered_model(name)
        client.create_model_version(name, f"runs:/{run_id}/x", run_id, await_creation_for=0)
        client.set_registered_model_alias(name, "challenger", "1")

    def asked(name):
        return [payload["client_payload"] for payload in github.asked].count({"name": name, "version": "1"})

    asking = replace(settings, registry=mlflow_server.uri, ask_every_s=0.1)
    challenge("lost-1")
    github.down = True
    serve_in_thread(make_relay(asking))
    assert wait_until(lambda: any(line["kind"] == "failed" for line in read_decisions(settings.log)))
    github.down = False  # it is asked for again
    assert wait_until(lambda: asked("lost-1"))
    challenge("lost-2")
    assert wait_until(lambda: asked("lost-2"))
    serve_in_thread(make_relay(asking))
    challenge("lost-3")
    assert wait_until(lambda: asked("lost-3"))
    assert [asked(f"lost-{number}") for number in (1, 2)] == [1, 1]
    asking.registry = None  # the two relays live on, and need not ask for ever
    for number in (1, 2, 3):
        client.delete_registered_model(f"lost-{number}")


def test_from_the_registry_to_the_workflow(relay, github, mlflow_server):
    """A real server: an alias is set, its hook arrives, is verified and passed on; after a restart too."""
    client = MlflowClient(mlflow_server.uri)
    run_id = client.create_run(client.create_experiment("hooks")).info.run_id
    client.create_registered_model("hooked")
    for version in ("1", "2"):
        client.create_model_version("hooked", f"runs:/{run_id}/x", run_id, await_creation_for=0)
        client.set_registered_model_alias("hooked", "champion", version)  # MLflow looks for webhooks
        webhooks.connect(client, relay, SECRET)
    assert [hook.url for hook in client.list_webhooks()] == [relay + PATH], "connected once"
    client.set_registered_model_alias("hooked", "challenger", "1")
    assert wait_until(lambda: len(github.asked) == 1), "the hook did not arrive"
    mlflow_server.stop()
    mlflow_server.start()
    client.set_registered_model_alias("hooked", "challenger", "2")
    assert wait_until(lambda: len(github.asked) == 2), "the hook did not arrive"
    assert [payload["client_payload"]["version"] for payload in github.asked] == ["1", "2"]
    client.delete_webhook(client.list_webhooks()[0].webhook_id)


def test_secrets_come_from_the_environment_and_are_not_shown(monkeypatch, tmp_path, capsys):
    for name, value in (("DISPATCH_TOKEN", TOKEN), ("DISPATCH_REPOSITORY", REPOSITORY), ("WEBHOOK_SECRET", "")):
        monkeypatch.setenv(f"MEDSAM_{name}", value)
    monkeypatch.setattr(sys, "argv", ["relay", "--log", str(tmp_path / "log")])
    with pytest.raises(SystemExit, match="2"):
        webhooks.main()
    assert re.fullmatch(r"relay: set MEDSAM_WEBHOOK_SECRET in the environment.+\n", capsys.readouterr().err)
    monkeypatch.setenv("MEDSAM_WEBHOOK_SECRET", SECRET)
    settings = Settings.from_environment(tmp_path / "log")
    assert (settings.secret, settings.token, settings.repository) == (SECRET, TOKEN, REPOSITORY)
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
