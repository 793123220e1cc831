"""Fixtures that many tests share, and where browser tests are collected."""

import os
import shutil
from importlib.util import find_spec

import pytest
from helpers import draw_discs, make_tiny_sam
from hypothesis import settings
from transformers import SamModel

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


@pytest.fixture
def tiny_sam() -> SamModel:
    return make_tiny_sam()


@pytest.fixture
def discs():
    return draw_discs


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory):
    """One real MLflow server for all tests that ask for it."""
    from medsam_helpers.mlops.server import Server

    with Server(tmp_path_factory.mktemp("mlflow")) as server:
        yield server
