"""Hub data sets: local parquet repositories with exactly their schemas, a hub on the loopback, and no hub at all."""

import io
import json
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import datasets
import numpy as np
import pytest
from huggingface_hub import constants
from PIL import Image

from medsam_helpers.data import hub
from medsam_helpers.data.hub import hub_dataset
from medsam_helpers.data.sources import load_data
from medsam_helpers.data.splits import Selection
from medsam_helpers.errors import DataError

PICTURE = datasets.Image()
KVASIR = {"name": datasets.Value("string"), "image": PICTURE, "annotation": PICTURE}
BREAST = {"image": PICTURE, "label": PICTURE}


def lesion(number: int) -> np.ndarray:
    mask = np.zeros((24, 32), bool)
    mask[4 : 10 + number % 8, 5 : 15 + number % 11] = True
    return mask


def picture(number: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype=np.uint8))


def write_repository(folder: Path, features: dict, **splits: dict[str, list]) -> Path:
    (folder / "data").mkdir(parents=True)
    for split, columns in splits.items():
        rows = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
        rows.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def kvasir_split(first: int, count: int) -> dict[str, list]:
    """Rows as on the hub: masks are RGB JPEG with noise round 0 and 255."""

    def mask(number: int) -> dict:
        file = io.BytesIO()
        Image.fromarray(lesion(number).astype(np.uint8) * 255).convert("RGB").save(file, "JPEG", quality=75)
        return {"bytes": file.getvalue(), "path": f"{number}.jpg"}

    numbers = range(first, first + count)
    return {
        "name": [f"cju{number}" for number in numbers],
        "image": [picture(number) for number in numbers],
        "annotation": [mask(number) for number in numbers],
    }


def breast_split(count: int) -> dict[str, list]:
    """Rows as on the hub: masks are int32 {0, 1}, which `convert("L") > 127` would lose."""
    return {
        "image": [picture(number) for number in range(count)],
        "label": [Image.fromarray(lesion(number).astype(np.int32)) for number in range(count)],
    }


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def breast_repository(tmp_path_factory) -> Path:
    return write_repository(tmp_path_factory.mktemp("hub") / "breast-cancer", BREAST, train=breast_split(130))


def test_kvasir_keeps_its_official_split_and_its_names(tmp_path):
    path = write_repository(tmp_path / "Kvasir-SEG", KVASIR, train=kvasir_split(0, 30), validation=kvasir_split(30, 6))
    data = load_data(path)
    assert str(data) == "Kvasir-SEG: 27 train, 3 dev, 6 val"
    assert sorted(data.val.names) == [f"cju{number}" for number in range(30, 36)]
    for case in [*data.dev, *data.val]:
        number = int(case.name.removeprefix("cju"))
        assert np.array_equal(case.image, np.asarray(picture(number)))
        assert np.mean(case.mask != lesion(number)) < 0.02  # JPEG frays the edge of so small a mask


def test_bad_rows_stop_with_the_list_or_are_left_out_by_name_and_so_is_a_split_nobody_uses(tmp_path):
    columns = breast_split(10)
    columns["image"][2] = {"bytes": b"no image", "path": None}
    columns["label"][5] = Image.fromarray(np.zeros((24, 32), np.int32))
    path = write_repository(tmp_path / "bad", BREAST, train=columns, validation=breast_split(2), test=breast_split(3))
    with pytest.raises(DataError, match="2 bad cases") as caught:
        load_data(path)
    assert "train-0005: the mask is empty" in str(caught.value)
    data = load_data(path, skip_bad=True)
    assert sorted(data.val.names) == ["validation-0000", "validation-0001"]
    assert len(data.left_out) == 3
    assert data.left_out[0] == "split test: 3 cases, not used"


def test_breast_gets_the_fixed_split_and_labels_0_and_1_become_masks(breast_repository):
    data = load_data(breast_repository)
    assert str(data) == "breast-cancer: 94 train, 10 dev, 26 val"
    for case in data.val:
        assert np.array_equal(case.mask, lesion(int(case.name.removeprefix("train-"))))


def test_another_schema_is_refused_with_its_columns(tmp_path):
    features = {"picture": PICTURE, "label": datasets.Value("int64")}
    path = write_repository(tmp_path / "other", features, train={"picture": [picture(0)], "label": [1]})
    with pytest.raises(DataError, match=r"other: split train has the columns picture \(Image\), label \(Value\)"):
        load_data(path)
    path = write_repository(tmp_path / "no-train", BREAST, test=breast_split(2))
    with pytest.raises(DataError, match="has no split train, only test"):
        load_data(path)
    path = write_repository(tmp_path / "leak", KVASIR, train=kvasir_split(0, 3), validation=kvasir_split(2, 3))
    with pytest.raises(DataError, match="'cju2' is the name of two cases"):
        load_data(path)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match="nothing: cannot be loaded"):
        hub_dataset(str(tmp_path / "nothing"), Selection())


@pytest.fixture
def silent_hub():
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_without_a_network_the_hub_gives_up_within_seconds_and_says_what_to_do(silent_hub, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", silent_hub)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "PROBE_SECONDS", 0.5)
    with pytest.raises(DataError, match=r"kowndinya23/Kvasir-SEG: the hub .* does not answer.*\(--data PATH\)"):
        load_data("kvasir")
    assert datasets.config.HF_HUB_OFFLINE is False


def test_offline_mode_asks_nobody(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub.requests, "head", lambda *_, **__: pytest.fail("asked the network"))
    with pytest.raises(DataError, match="HF_HUB_OFFLINE is set"):
        load_data("breast")


class LoopbackHub(BaseHTTPRequestHandler):
    """Answers what `datasets` asks of a hub: one repository, its tree and its files."""

    repo, commit, root = "nielsr/breast-cancer", "c" * 40, Path()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        files = {str(file.relative_to(self.root)): file for file in self.root.rglob("*.parquet")}
        api, resolve = f"/api/datasets/{self.repo}", f"/datasets/{self.repo}/resolve/"
        if path.startswith(f"{api}/tree/"):
            folder = path.removeprefix(f"{api}/tree/{self.commit}").strip("/")
            entries = [
                {"type": "file", "path": name, "size": file.stat().st_size, "oid": "f" * 40}
                for name, file in files.items()
                if str(Path(name).parent) == (folder or ".")
            ]
            if not folder:
                entries.append({"type": "directory", "path": "data", "size": 0, "oid": "d" * 40})
            self.reply(entries)
        elif path == api or path.startswith(f"{api}/revision/"):
            self.reply({"id": self.repo, "sha": self.commit, "siblings": [{"rfilename": name} for name in files]})
        elif path.startswith(resolve) and (name := path.removeprefix(resolve).partition("/")[2]) in files:
            self.reply(files[name].read_bytes())
        else:
            self.send_response(404 if path != "/" else 200)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    do_HEAD = do_GET

    def reply(self, content: object) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(200)
        self.send_header("ETag", '"some-etag"')
        self.send_header("X-Repo-Commit", self.commit)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: the test reads answers, not logs."""


def test_a_data_set_comes_from_a_hub_and_stays_when_the_hub_is_gone(tmp_path, breast_repository):
    """The real client against a hub on the loopback, in a process of its own: it reads its address when imported."""
    script = "from medsam_helpers.data.sources import load_data; data = load_data('breast'); print(data, data.digest)"
    handler = type("Handler", (LoopbackHub,), {"root": breast_repository})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
        environment = clean | {
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "HF_HOME": str(tmp_path / "home"),
            "NO_PROXY": "127.0.0.1",
        }
        command = [sys.executable, "-c", script]
        with_hub = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        server.shutdown()
    without_hub = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    expected = f"breast: 94 train, 10 dev, 26 val {load_data(breast_repository).digest}\n"
    assert with_hub.stdout == expected, with_hub.stderr
    assert without_hub.stdout == expected, without_hub.stderr
