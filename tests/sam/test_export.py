"""`export`, and its `--push-to-hub` against a hub of our own on the loopback: what arrives, what is sent along."""

import base64
import contextlib
import hashlib
import io
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

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


class Hub(ThreadingHTTPServer):
    """As much of the hub as an upload needs: create, preupload, LFS batch and store, commit."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.blobs: dict[str, bytes] = {}
        self.files: dict[str, bytes] = {}
        self.created: dict = {}
        self.refusals: dict[str, tuple[int, str]] = {}
        """Part of a path -> status and message in place of an answer."""

    def answer(self, method: str, path: str, body: bytes) -> dict:
        if path == "/api/repos/create":
            self.created = json.loads(body)
            return {"url": f"{self.address}/{REPOSITORY}"}
        if path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}
        if path == f"/api/models/{REPOSITORY}/preupload/main":
            names = [file["path"] for file in json.loads(body)["files"]]
            mode = {True: "lfs", False: "regular"}
            files = [{"path": n, "uploadMode": mode[n.endswith(".safetensors")], "shouldIgnore": False} for n in names]
            return {"files": files}
        if path == f"/{REPOSITORY}.git/info/lfs/objects/batch":
            objects = json.loads(body)["objects"]
            uploads = [{"upload": {"href": f"{self.address}/store/{wanted['oid']}"}} for wanted in objects]
            return {"objects": [o | {"actions": actions} for o, actions in zip(objects, uploads, strict=True)]}
        if method == "PUT" and path.startswith("/store/"):
            self.blobs[path.removeprefix("/store/")] = body
            return {}
        if path == f"/api/models/{REPOSITORY}/commit/main":
            self.commit([json.loads(line) for line in body.splitlines()])
            return {"commitUrl": f"{self.address}/{REPOSITORY}/commit/1", "commitOid": "1" * 40}
        raise LookupError(path)

    def commit(self, lines: list[dict]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.files[value["path"]] = self.blobs[value["oid"]]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def serve(self) -> None:
        body = self._body()
        hub: Hub = self.server
        hub.requests.append((self.command, self.path, dict(self.headers), body))
        path, status, headers = self.path.split("?")[0], 200, {}
        refused = [refusal for part, refusal in hub.refusals.items() if part in path]
        if refused:
            status, message = refused[0]
            headers["X-Error-Message"] = message
            answer = {"error": message}
        else:
            try:
                answer = hub.answer(self.command, path, body)
            except LookupError:
                status, answer = 404, {"error": "not here"}
        text = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Type": "application/json", "Content-Length": len(text)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    do_GET = do_HEAD = do_POST = do_PUT = serve

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def log_message(self, *_: object) -> None:
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


def medsam(*arguments: object) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([str(argument) for argument in arguments])
    return status, out.getvalue(), err.getvalue()


def push(checkpoint: Path, output: Path, repository: str = REPOSITORY) -> tuple[int, str, str]:
    return medsam("export", "--checkpoint", checkpoint, "--output", output, "--push-to-hub", repository, "--json")


def digests(files: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def last_line(err: str) -> str:
    return [line for line in re.split(r"[\r\n]+", err) if line.strip()][-1]


# --- the folder ---


def test_an_export_is_whole_for_plain_transformers_and_for_us(tuned, tmp_path):
    status, out, err = medsam("export", "--checkpoint", tuned, "--output", tmp_path / "full", "--json")
    assert status == 0, err
    assert json.loads(out.splitlines()[-1]) == {"folder": str(tmp_path / "full")}
    expected = {"config.json", "model.safetensors", "processor_config.json", "README.md", "finetune_card.json"}
    assert {path.name for path in (tmp_path / "full").iterdir()} == expected
    assert len({path.stat().st_mode for path in (tmp_path / "full").iterdir()}) == 1, "who reads one reads all"

    image = np.random.default_rng(0).integers(0, 255, (60, 90, 3)).astype(np.uint8)
    box = np.array([10, 8, 50, 55])
    ours = Segmenter.load(tuned, device="cpu", precision="fp32").predict(image, boxes=box)
    again = Segmenter.load(tmp_path / "full", device="cpu", precision="fp32").predict(image, boxes=box)
    np.testing.assert_array_equal(again.masks, ours.masks)

    model, processor = SamModel.from_pretrained(tmp_path / "full"), SamProcessor.from_pretrained(tmp_path / "full")
    inputs = processor(images=image, input_boxes=[[box.tolist()]], return_tensors="pt")
    inputs["input_boxes"] = inputs["input_boxes"].float()
    with torch.inference_mode():
        sizes = {name: inputs.pop(name) for name in ("original_sizes", "reshaped_input_sizes")}
        logits = model(**inputs, multimask_output=False).pred_masks
    plain = processor.post_process_masks(logits, sizes["original_sizes"], sizes["reshaped_input_sizes"])[0][0, 0]
    assert 0.01 < plain.float().mean() < 0.99
    assert (plain.numpy() != ours.masks[0, 0]).mean() < 0.01, "but for rounding of the resized image"


def test_the_card_travels_along_without_the_places_of_this_machine(tuned, tmp_path):
    folder = export_model(tuned, tmp_path / "full")
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert text.startswith("---\nlicense: apache-2.0\n---\n# A decoder for Zürich\n")
    assert json.loads((folder / "finetune_card.json").read_text())["metrics"] == {"tuned_dice": 0.5}
    for file in folder.iterdir():
        assert str(tmp_path).encode() not in file.read_bytes(), file.name


def test_a_failed_export_leaves_nothing(tuned, tmp_path):
    (tuned / "decoder.safetensors").write_bytes(b"cut")
    with pytest.raises(CheckpointError, match="missing or damaged"):
        export_model(tuned, tmp_path / "full")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny", "tuned"]


# --- to the hub ---


def test_every_file_arrives_whole_in_a_private_repository(hub, tuned, tmp_path):
    status, out, err = push(tuned, tmp_path / "full")
    assert status == 0, err
    assert json.loads(out.splitlines()[-1])["url"] == f"{hub.address}/{REPOSITORY}"
    assert (hub.created["organization"], hub.created["name"]) == ("me", "polyp-sam")
    assert hub.created.get("visibility") == "private" or hub.created.get("private") is True
    sent = {path.name: path.read_bytes() for path in (tmp_path / "full").iterdir()}
    assert {"config.json", "model.safetensors", "processor_config.json", "README.md"} <= set(sent)
    assert digests(hub.files) == digests(sent)
    assert hub.blobs.keys() == {hashlib.sha256(sent["model.safetensors"]).hexdigest()}, "the weights went as LFS"
    plain = SamModel.from_pretrained(tmp_path / "full")
    assert state_digest(plain) == state_digest(Segmenter.load(tuned).model)
    assert plain.config.architectures == ["SamModel"]


def test_the_token_travels_in_its_header_and_nowhere_else(hub, tuned, tmp_path):
    status, out, err = push(tuned, tmp_path / "full")
    assert status == 0
    bearers = []
    for method, path, headers, body in hub.requests:
        authorisation = {k: v for k, v in headers.items() if TOKEN in v}
        assert set(map(str.lower, authorisation)) <= {"authorization"}, (method, path)
        assert TOKEN not in path
        assert TOKEN.encode() not in body
        bearers += [path] if authorisation else []
    assert "/api/repos/create" in bearers
    assert any("/commit/" in path for path in bearers)
    assert TOKEN not in out + err
    assert not any(TOKEN.encode() in path.read_bytes() for path in (tmp_path / "full").iterdir())


@pytest.mark.parametrize("part", ["/api/repos/create", "/commit/", "/store/"])
def test_a_refusal_is_one_line_with_the_hubs_reason_and_the_way_on(hub, tuned, tmp_path, part):
    hub.refusals[part] = (403, "You don't have the rights to do this")
    status, out, err = push(tuned, tmp_path / "full")
    assert status == 2
    line = last_line(err)
    assert line.startswith(f"medsam: cannot push to {REPOSITORY}: ")
    assert "403" in line
    assert f"`hf upload {REPOSITORY} {tmp_path / 'full'} --private` sends it" in line
    assert "You don't have the rights to do this" in line
    assert "Traceback" not in err
    assert TOKEN not in out + err
    assert hub.files == {}
    assert (tmp_path / "full" / "model.safetensors").is_file(), "the export itself is whole"


@pytest.mark.parametrize(
    ("repository", "message"),
    [
        ("polyp-sam", "'polyp-sam': a repository is named OWNER/NAME"),
        ("me/a model", "cannot push to 'me/a model'"),
    ],
)
def test_a_bad_repository_name_is_found_before_anything_is_written(hub, tuned, tmp_path, repository, message):
    with pytest.raises(ConfigError) as caught:
        check_hub_access(repository)
    assert message in str(caught.value)
    assert push(tuned, tmp_path / "full", repository)[0] == 2
    assert not (tmp_path / "full").exists()
    assert hub.requests == []


def test_without_a_token_nothing_is_written_or_asked(hub, tuned, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    status, _, err = push(tuned, tmp_path / "full")
    assert (status, len(err.splitlines())) == (2, 1)
    assert "no token; set HF_TOKEN, or log in" in err
    assert not (tmp_path / "full").exists()
    assert hub.requests == []


def test_a_hub_that_breaks_off_is_one_line(hub, tuned, tmp_path):
    folder = export_model(tuned, tmp_path / "full")
    hub.answer = lambda *_: "no object"
    with pytest.raises(CheckpointError, match=f"cannot push to {REPOSITORY}: "):
        push_to_hub(folder, REPOSITORY)


def test_a_weights_folder_is_exported_with_a_readme_of_its_own(tuned, tmp_path):
    base = Path(json.loads((tuned / "run_card.json").read_text())["base_path"])
    folder = export_model(base, tmp_path / "base")
    assert (folder / "README.md").read_text().startswith("# tiny\n")
    assert not (folder / "finetune_card.json").exists()
    assert state_digest(load_sam(folder)) == state_digest(load_sam(base))
    with pytest.raises(ConfigError, match="not empty: export to a new folder"):
        export_model(base, folder)


def test_without_the_hub_a_push_is_refused_within_seconds(hub, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(CheckpointError, match=rf"cannot push to {REPOSITORY}: .*does not answer"):
        check_hub_access(REPOSITORY)
