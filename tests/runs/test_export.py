"""`export`, and its `--push-to-hub` against a hub of our own on the loopback: what arrives, what is sent along."""

import base64
import hashlib
import json
import re

import numpy as np
import pytest
import torch
from helpers import loopback, medsam
from huggingface_hub import constants
from transformers import SamModel, SamProcessor
from werkzeug import Response

from medsam_helpers.errors import CheckpointError, ConfigError
from medsam_helpers.runs.export import export_model, push_to_hub
from medsam_helpers.sam.loading import load_sam, state_digest
from medsam_helpers.sam.segmenter import Segmenter

TOKEN = "hf_secretsecretsecret"
REPOSITORY = "me/polyp-sam"
REASON = "You don't have the rights to do this"


class Hub:
    """As much of the hub as an upload needs: create, preupload, LFS batch and store, commit."""

    def __init__(self):
        self.address = ""
        self.requests, self.blobs, self.files, self.created = [], {}, {}, {}
        self.refused = "nothing"  # the part of a path that is answered with 403

    def serve(self, request):
        body, refused = request.get_data(), request.method == "GET" or self.refused in request.path
        self.requests.append((request.full_path, dict(request.headers), body))
        answer = {"error": REASON} if refused else self.answer(request.path, body)
        return Response(json.dumps(answer), 403 if refused else 200)

    def answer(self, path, body):
        if path == "/store":
            self.blobs[hashlib.sha256(body).hexdigest()] = body
        elif path.endswith("/commit/main"):
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    self.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    self.files[value["path"]] = self.blobs[value["oid"]]
            return {"commitUrl": f"{self.address}/{REPOSITORY}/commit/1", "commitOid": "1" * 40}
        elif path == "/api/repos/create":
            self.created = json.loads(body)
            return {"url": f"{self.address}/{REPOSITORY}"}
        elif path.endswith("/preupload/main"):
            files = json.loads(body)["files"]
            for file in files:
                file["uploadMode"] = "lfs" if file["path"].endswith(".safetensors") else "regular"
            return {"files": [file | {"shouldIgnore": False} for file in files]}
        elif path.endswith("/objects/batch"):
            actions = {"upload": {"href": f"{self.address}/store"}}
            return {"objects": [wanted | {"actions": actions} for wanted in json.loads(body)["objects"]]}
        return {}


@pytest.fixture
def hub(monkeypatch):
    hub = Hub()
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with loopback(hub.serve) as hub.address:
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        yield hub


def push(checkpoint, output, repository=REPOSITORY):
    return medsam("export", "--checkpoint", checkpoint, "--output", output, "--push-to-hub", repository, "--json")


def test_an_export_is_whole_for_plain_transformers_and_for_us(tuned, tmp_path):
    folder = export_model(tuned, tmp_path / "full")
    files = {path.name: path for path in folder.iterdir()}
    assert {*files} == {"config.json", "model.safetensors", "processor_config.json", "README.md", "finetune_card.json"}
    assert len({path.stat().st_mode for path in files.values()}) == 1, "who reads one reads all"
    assert files["README.md"].read_text("utf-8").startswith("---\nlicense: apache-2.0\n---\n# A decoder for Zürich\n")
    assert json.loads(files["finetune_card.json"].read_text())["metrics"] == {"tuned_dice": 0.5}
    for path in files.values():
        assert str(tmp_path).encode() not in path.read_bytes(), f"{path.name}: a place of this machine"

    image = np.random.default_rng(0).integers(0, 255, (60, 90, 3)).astype(np.uint8)
    box = np.array([10, 8, 50, 55])
    ours, again = (Segmenter.load(f, device="cpu", precision="fp32").predict(image, boxes=box) for f in (tuned, folder))
    np.testing.assert_array_equal(again.masks, ours.masks)

    model, processor = SamModel.from_pretrained(folder), SamProcessor.from_pretrained(folder)
    inputs = processor(images=image, input_boxes=[[box.tolist()]], return_tensors="pt")
    inputs["input_boxes"] = inputs["input_boxes"].float()
    sizes = [inputs.pop(name) for name in ("original_sizes", "reshaped_input_sizes")]
    with torch.inference_mode():
        logits = model(**inputs, multimask_output=False).pred_masks
    plain = processor.post_process_masks(logits, *sizes)[0][0, 0]
    assert 0.01 < plain.float().mean() < 0.99
    assert (plain.numpy() != ours.masks[0, 0]).mean() < 0.01, "but for rounding of the resized image"


def test_every_file_arrives_in_a_private_repository_and_the_token_only_in_its_header(hub, tuned, tmp_path):
    said = push(tuned, tmp_path / "full")
    assert said.status == 0, said
    assert said.json["url"] == f"{hub.address}/{REPOSITORY}"
    assert (hub.created["organization"], hub.created["name"]) == ("me", "polyp-sam")
    assert hub.created.get("visibility") == "private" or hub.created.get("private") is True
    sent = {path.name: path.read_bytes() for path in (tmp_path / "full").iterdir()}
    assert hub.files == sent
    assert hub.blobs.keys() == {hashlib.sha256(sent["model.safetensors"]).hexdigest()}, "the weights went as LFS"
    assert json.loads(sent["config.json"])["architectures"] == ["SamModel"]
    bearers = set()
    for path, headers, body in hub.requests:
        bearers |= {name.lower() for name, value in headers.items() if TOKEN in value}
        assert TOKEN not in path
        assert TOKEN.encode() not in body
    assert bearers == {"authorization"}
    assert TOKEN not in str(said)


@pytest.mark.parametrize("part", ["/api/repos/create", "/store"])
def test_a_refusal_is_one_line_with_the_hubs_reason_and_the_way_on(hub, tuned, tmp_path, part):
    hub.refused = part
    said = push(tuned, tmp_path / "full")
    assert (said.status, hub.files) == (2, {})
    assert re.search(f"medsam: cannot push to {REPOSITORY}: .*403.*{REASON}", said.err[-1])
    assert f"`hf upload {REPOSITORY} {tmp_path / 'full'} --private` sends it" in said.err[-1]
    assert not re.search(f"Traceback|{TOKEN}", str(said))
    assert (tmp_path / "full" / "model.safetensors").is_file(), "the export itself is whole"


@pytest.mark.parametrize(
    ("repository", "message"),
    [
        ("me/a model", "'me/a model': a repository is named OWNER/NAME"),
        (REPOSITORY, "no token; set HF_TOKEN, or log in"),
    ],
)
def test_without_name_and_token_nothing_is_written_or_asked(hub, tuned, monkeypatch, repository, message):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tuned / "no-token"))
    said = push(tuned, tuned / "full", repository)
    assert (said.status, said.out, len(said.err), message in said.err[0]) == (2, "", 1, True)
    assert ((tuned / "full").exists(), hub.requests) == (False, [])


def test_a_hub_that_breaks_off_is_one_error(hub, tuned, tmp_path):
    folder = export_model(tuned, tmp_path / "full")
    hub.answer = lambda *_: "no object"
    with pytest.raises(CheckpointError, match=f"cannot push to {REPOSITORY}: "):
        push_to_hub(folder, REPOSITORY)


def test_a_weights_folder_gets_a_readme_and_what_cannot_be_exported_leaves_nothing(tuned, tmp_path):
    base = tuned.parent / "tiny"
    folder = export_model(base, tmp_path / "base")
    assert (folder / "README.md").read_text().startswith("# tiny\n")
    assert not (folder / "finetune_card.json").exists()
    assert state_digest(load_sam(folder)) == state_digest(load_sam(base))
    with pytest.raises(ConfigError, match="is not an empty folder: name a new one"):
        export_model(base, folder)
    (tuned / "decoder.safetensors").write_bytes(b"cut")
    with pytest.raises(CheckpointError, match="missing or damaged"):
        export_model(tuned, tmp_path / "full")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "tiny", "tuned"], "a failed one leaves nothing"
