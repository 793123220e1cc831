"""`export`, and its `--push-to-hub` against a hub of our own on the loopback: what arrives, what is sent along."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from transformers import SamModel, SamProcessor

from medsam_helpers.cli.main import main
from medsam_helpers.errors import CheckpointError, ConfigError
from medsam_helpers.sam.export import check_hub_access, export_model, push_to_hub
from medsam_helpers.sam.loading import load_sam, state_digest
from medsam_helpers.sam.segmenter import Segmenter

TOKEN = "hf_secretsecretsecret"
REPOSITORY = "me/polyp-sam"
REASON = "You don't have the rights to do this"


class Hub(ThreadingHTTPServer):
    """As much of the hub as an upload needs: create, preupload, LFS batch and store, commit."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.requests, self.blobs, self.files, self.created = [], {}, {}, {}
        self.refused = "nothing"  # the part of a path that is answered with 403

    def answer(self, path, body):
        if path == "/api/repos/create":
            self.created = json.loads(body)
            return {"url": f"{self.address}/{REPOSITORY}"}
        if path == f"/api/models/{REPOSITORY}/preupload/main":
            names = [file["path"] for file in json.loads(body)["files"]]
            mode = {True: "lfs", False: "regular"}
            files = [{"path": n, "uploadMode": mode[n.endswith(".safetensors")], "shouldIgnore": False} for n in names]
            return {"files": files}
        if path == f"/{REPOSITORY}.git/info/lfs/objects/batch":
            actions = {"upload": {"href": f"{self.address}/store"}}
            return {"objects": [wanted | {"actions": actions} for wanted in json.loads(body)["objects"]]}
        if path == "/store":
            self.blobs[hashlib.sha256(body).hexdigest()] = body
        if path == f"/api/models/{REPOSITORY}/commit/main":
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    self.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    self.files[value["path"]] = self.blobs[value["oid"]]
            return {"commitUrl": f"{self.address}/{REPOSITORY}/commit/1", "commitOid": "1" * 40}
        return {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def serve(self):
        hub, body, refused = self.server, self.body(), self.server.refused in self.path
        hub.requests.append((self.path, dict(self.headers), body))
        answer = {"error": REASON} if refused else hub.answer(self.path.split("?")[0], body)
        text = json.dumps(answer).encode()
        self.send_response(403 if refused else 200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_POST = do_PUT = serve

    def body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def hub(monkeypatch):
    with Hub() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server
        server.shutdown()


@pytest.fixture
def push(capsys):
    """`medsam export --push-to-hub`: gives status, the line of JSON where there is one, and all that was said."""

    def run(checkpoint, output, repository=REPOSITORY):
        where = ["--checkpoint", str(checkpoint), "--output", str(output)]
        capsys.readouterr()  # what was said before
        status = main(["export", *where, "--push-to-hub", repository, "--json"])
        out, err = capsys.readouterr()
        return status, json.loads(out.splitlines()[-1]) if status == 0 else None, out + err

    return run


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


def test_a_failed_export_leaves_nothing(tuned, tmp_path):
    (tuned / "decoder.safetensors").write_bytes(b"cut")
    with pytest.raises(CheckpointError, match="missing or damaged"):
        export_model(tuned, tmp_path / "full")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny", "tuned"]


def test_every_file_arrives_in_a_private_repository_and_the_token_only_in_its_header(hub, push, tuned, tmp_path):
    status, figures, said = push(tuned, tmp_path / "full")
    assert status == 0, said
    assert figures["url"] == f"{hub.address}/{REPOSITORY}"
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
    assert TOKEN not in said


@pytest.mark.parametrize("part", ["/api/repos/create", "/store"])
def test_a_refusal_is_one_line_with_the_hubs_reason_and_the_way_on(hub, push, tuned, tmp_path, part):
    hub.refused = part
    status, _, said = push(tuned, tmp_path / "full")
    line = re.split(r"[\r\n]+", said.strip())[-1]
    assert (status, hub.files) == (2, {})
    assert re.search(f"medsam: cannot push to {REPOSITORY}: .*403.*{REASON}", line)
    assert f"`hf upload {REPOSITORY} {tmp_path / 'full'} --private` sends it" in line
    assert "Traceback" not in said
    assert TOKEN not in said
    assert (tmp_path / "full" / "model.safetensors").is_file(), "the export itself is whole"


@pytest.mark.parametrize(
    ("repository", "message"),
    [
        ("polyp-sam", "'polyp-sam': a repository is named OWNER/NAME"),
        ("me/a model", "'me/a model': a repository is named OWNER/NAME"),
        (REPOSITORY, "no token; set HF_TOKEN, or log in"),
    ],
)
def test_without_a_good_name_and_a_token_nothing_is_written_or_asked(
    hub, push, tuned, monkeypatch, repository, message
):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tuned / "no-token"))
    status, _, said = push(tuned, tuned / "full", repository)
    assert (status, len(said.splitlines())) == (2, 1)
    assert message in said
    assert not (tuned / "full").exists()
    assert hub.requests == []


def test_a_hub_that_breaks_off_or_does_not_answer_is_one_error(hub, tuned, tmp_path, monkeypatch):
    folder = export_model(tuned, tmp_path / "full")
    hub.answer = lambda *_: "no object"
    with pytest.raises(CheckpointError, match=f"cannot push to {REPOSITORY}: "):
        push_to_hub(folder, REPOSITORY)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(CheckpointError, match=rf"cannot push to {REPOSITORY}: .*does not answer"):
        check_hub_access(REPOSITORY)


def test_a_weights_folder_is_exported_with_a_readme_of_its_own(tuned, tmp_path):
    base = tuned.parent / "tiny"
    folder = export_model(base, tmp_path / "base")
    assert (folder / "README.md").read_text().startswith("# tiny\n")
    assert not (folder / "finetune_card.json").exists()
    assert state_digest(load_sam(folder)) == state_digest(load_sam(base))
    with pytest.raises(ConfigError, match="not empty: export to a new folder"):
        export_model(base, folder)
