"""Automation: a signed hook of a real server starts a workflow, every other request is refused and logged."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import pytest
import requests
import yaml
from fastapi import FastAPI, Header, Response
from mlflow import MlflowClient

from medsam_helpers.errors import ConfigError
from medsam_helpers.mlops import registry, webhooks
from medsam_helpers.mlops.server import wait_until
from medsam_helpers.mlops.webhooks import EVENT, PATH, Settings, make_relay, read_decisions, serve_in_thread, sign

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


def send(relay, content=ALIAS_SET, *, delivery="d-1", age_s=0, secret=SECRET, change=lambda body: body):
    body, timestamp = json.dumps(content).encode(), str(int(time.time() - age_s))
    told = {"Delivery-Id": delivery, "Timestamp": timestamp, "Signature": sign(secret, delivery, timestamp, body)}
    headers = {f"X-MLflow-{name}": value for name, value in told.items()}
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
    assert [line["accepted"] for line in decisions] == [False, True, False, False, True]
    assert decisions[1]["what"] == f"dispatched {EVENT} for breast version 7"
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
    assert (line["accepted"], line["what"], line["delivery"], github.asked) == (accepted, reason, "d-1", [])


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


def test_secrets_come_from_the_environment_and_are_not_shown(monkeypatch, tmp_path):
    for name, value in (("DISPATCH_TOKEN", TOKEN), ("DISPATCH_REPOSITORY", REPOSITORY), ("WEBHOOK_SECRET", "")):
        monkeypatch.setenv(f"MEDSAM_{name}", value)
    with pytest.raises(ConfigError, match="set MEDSAM_WEBHOOK_SECRET in the environment"):
        Settings.from_environment(tmp_path / "log")
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
    (asked,) = [command for command in commands if "medsam_helpers.mlops.registry" in command]
    monkeypatch.setattr(sys, "argv", ["registry", "--help"])
    with pytest.raises(SystemExit):
        registry.main()
    assert set(re.findall(r"--\w+", asked)) <= set(re.findall(r"--\w+", capsys.readouterr().out))
