"""Small stand-ins that many tests share: a random SAM, cases to segment, an isolated cache."""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image
from transformers import SamConfig, SamModel

from medsam_helpers.data.case import Case, Cases

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


def make_tiny_sam(seed: int = 0) -> SamModel:
    """A SAM of the real architecture with 0.1 M random weights: input 128, embedding 16 x 16, masks 64 x 64."""
    torch.manual_seed(seed)
    width = 32
    config = SamConfig(
        vision_config={
            "hidden_size": width,
            "output_channels": width,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 128,
            "patch_size": 8,
            "window_size": 4,
            "global_attn_indexes": [1],
            "num_pos_feats": width // 2,
            "mlp_dim": 64,
            "initializer_range": 0.1,  # the default, 1e-10, makes every embedding zero
        },
        prompt_encoder_config={"hidden_size": width, "image_size": 128, "patch_size": 8, "mask_input_channels": 4},
        mask_decoder_config={
            "hidden_size": width,
            "mlp_dim": 64,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": width,
        },
        initializer_range=0.1,
    )
    return SamModel(config).eval()


@pytest.fixture
def tiny_sam() -> SamModel:
    return make_tiny_sam()


def draw_discs(count: int, seed: int = 0) -> Cases:
    """Bright discs on a dark, noisy ground, images of varying, non-square size."""

    def draw(name: str) -> Case:
        rng = np.random.default_rng([seed, int(name.split("-")[1])])
        height, width = rng.integers(60, 120, 2)
        y, x = np.ogrid[:height, :width]
        centre_y, centre_x = rng.uniform(0.35, 0.65, 2) * (height, width)
        mask = (y - centre_y) ** 2 + (x - centre_x) ** 2 < (0.25 * min(height, width)) ** 2
        image = rng.integers(0, 90, (height, width, 3)) + mask[..., None] * 150
        return Case(name, image.astype(np.uint8), mask)

    return Cases([f"disc-{index}" for index in range(count)], draw)


def save_images(cases: Cases, folder: Path) -> Cases:
    """Write `images/` and `masks/`, without lists: readers draw the splits."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for case in cases:
        Image.fromarray(case.image).save(folder / "images" / f"{case.name}.png")
        Image.fromarray(case.mask).save(folder / "masks" / f"{case.name}.png")
    return cases


@pytest.fixture
def discs():
    return draw_discs


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory):
    """One real MLflow server for all tests that ask for it."""
    from medsam_helpers.mlops.server import Server

    with Server(tmp_path_factory.mktemp("mlflow")) as server:
        yield server
