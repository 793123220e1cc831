"""The tracking server's own pages in a real browser: curves, the table of pictures, the registry; nothing from outside.

`MEDSAM_KEEP_PICTURES=1` keeps what was seen beside notebook 07, for its readers. Phantoms only.
"""

import os
import re
import shutil
from pathlib import Path

import pytest
from lab import chromium
from mlflow import MlflowClient
from PIL import Image

from medsam_helpers.mlops.pipeline import train_tracked
from medsam_helpers.mlops.registry import register
from medsam_helpers.runs.settings import RunConfig

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PICTURES = Path(__file__).parents[2] / "notebooks" / "pictures"
NAME = "medsam-breast"


@pytest.fixture(scope="module")
def filled(tmp_path_factory, mlflow_server):
    """A run on phantoms, its evaluation, and its model as a champion."""
    folder = tmp_path_factory.mktemp("ui") / "first"
    sizes = {"train_limit": 12, "dev_limit": 6, "val_limit": 12}
    config = RunConfig(data="phantom-ultrasound", recipe="medsam", epochs=2, precision="fp32", **sizes)
    tracked = train_tracked(config, folder, experiment="breast", uri=mlflow_server.uri, show_progress=False)
    client = MlflowClient(mlflow_server.uri)
    version = register(client, NAME, tracked.run_id, folder)
    client.set_registered_model_alias(NAME, "champion", version.version)
    experiment = client.get_experiment_by_name("breast").experiment_id
    return mlflow_server.uri, f"{mlflow_server.uri}/#/experiments/{experiment}/runs", tracked


@pytest.fixture(scope="module")
def context():
    """A browser that notes which machines are asked for something."""
    with chromium() as browser:
        context = browser.new_context(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
        context.asked = set()
        context.on("request", lambda request: context.asked.add(re.sub(r"^(\w+://[^/:]+).*", r"\1", request.url)))
        yield context


def keep(page, name, tmp_path):
    """A picture of the drawn page, small enough for the repository, without the notes that lie over it."""
    for button in page.get_by_role("button", name=re.compile("^(close|dismiss|got it|not now)$", re.I)).all():
        if button.is_visible():
            button.click()
    page.evaluate(
        "document.fonts.ready.then(() => new Promise((done) => requestAnimationFrame(() => setTimeout(done))))"
    )
    picture = tmp_path / f"07_{name}.png"
    page.screenshot(path=picture, animations="disabled")
    Image.open(picture).convert("RGB").quantize(256).save(picture, optimize=True)
    assert picture.stat().st_size < 300_000
    if os.environ.get("MEDSAM_KEEP_PICTURES"):
        PICTURES.mkdir(exist_ok=True)
        shutil.copy(picture, PICTURES)


def opened(context, address, *texts, exact=False):
    """The page, once it shows the texts."""
    page = context.new_page()
    page.goto(address)
    for text in texts:
        page.get_by_text(text, exact=exact).first.wait_for(timeout=60_000)
    return page


def test_a_run_shows_its_curves(context, filled, tmp_path):
    # Further down the page draws only what is scrolled to.
    page = opened(context, f"{filled[1]}/{filled[2].run_id}/model-metrics", "dev_dice", "dev_iou", "loss", exact=True)
    page.locator(".js-plotly-plot .trace").first.wait_for(timeout=60_000)
    keep(page, "run_page", tmp_path)


def test_the_table_shows_its_pictures_worst_first(context, filled, tmp_path):
    page = opened(context, f"{filled[1]}/{filled[2].evaluation_id}/artifacts/qualitative.json", "tuned Dice")
    shown = "[...document.images].filter(i => i.complete && i.naturalWidth > 60 && i.offsetParent).length >= 4"
    page.wait_for_function(shown, timeout=60_000)
    keep(page, "table", tmp_path)


def test_the_registry_shows_version_card_and_alias(context, filled, tmp_path):
    keep(opened(context, f"{filled[0]}/#/models/{NAME}", "Version 1", "champion"), "registry", tmp_path)


def test_the_pages_asked_nobody_but_this_machine(context, filled):
    outside = {place for place in context.asked if not place.endswith("://127.0.0.1")}
    assert outside - {"blob:http", "data:image"} == set()
