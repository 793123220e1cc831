"""Fixtures that many tests share, and where browser tests are collected."""

import os
import shutil
from importlib.util import find_spec

import pytest
import torch
from helpers import draw_discs, make_tiny_sam, save_images
from hypothesis import settings
from transformers import SamModel

from medsam_helpers.sam.loading import load_sam, model_info
from medsam_helpers.sam.segmenter import Segmenter
from medsam_helpers.sam.tuned import part_state, save_decoder

# Browser tests are collected where Playwright and Chromium are: `make test-browser` brings both. Said here, since a
# second module named conftest would take this one's place when tests import from it.
CHROMIUM = os.environ.get("MEDSAM_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
if not (CHROMIUM and find_spec("playwright")):
    collect_ignore_glob = ["browser/*.py"]

# The same examples on every run: a red run is then a change's doing, not chance's.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder of this test's own."""
    monkeypatch.setenv("MEDSAM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder for all tests of a file: a model, `tiny`; 7 train, 1 dev and 4 val cases, `data`; a cache."""
    root = tmp_path_factory.mktemp("place")
    make_tiny_sam().save_pretrained(root / "tiny")
    save_images(draw_discs(12), root / "data", n_train=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDSAM_CACHE", str(root / "cache"))
        patch.setenv("OMP_NUM_THREADS", "1")  # for processes that they start
        yield root


@pytest.fixture
def tiny_sam() -> SamModel:
    return make_tiny_sam()


@pytest.fixture
def segmenter(tiny_sam):
    return Segmenter(tiny_sam, "cpu", precision="fp32")


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory):
    """One real MLflow server for all tests that ask for it."""
    from medsam_helpers.mlops.server import Server

    with Server(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


@pytest.fixture
def client(mlflow_server):
    from mlflow import MlflowClient

    return MlflowClient(mlflow_server.uri)


@pytest.fixture
def tiny_folder(tiny_sam, tmp_path):
    """Random weights in the hub's layout."""
    tiny_sam.save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def tuned(tiny_folder, tmp_path):
    """The folder of a decoder, changed from its base, with a model card."""
    model = load_sam(tiny_folder)
    with torch.no_grad():
        model.mask_decoder.iou_token.weight += 1
    info = model_info(model)
    card = {"base": info.name, "base_digest": info.base_digest, "base_path": str(tiny_folder)}
    card["metrics"] = {"tuned_dice": 0.5}
    folder = save_decoder(part_state(model, ["mask_decoder"]), tmp_path / "tuned", card)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A decoder for Zürich\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def mobile_sam():
    return load_sam("mobile-sam", show_progress=False)
