"""The tracking server's own pages in a real browser: curves, the table of pictures, the registry; nothing from outside.

`MEDSAM_KEEP_PICTURES=1` keeps what was seen beside notebook 07, for its readers. Phantoms only.
"""

import os
import re
import shutil
from pathlib import Path

import pytest
from lab import chromium
from PIL import Image

from medsam_helpers.mlops.pipeline import train_tracked
from medsam_helpers.mlops.registry import register
from medsam_helpers.runs.settings import RunConfig

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PICTURES = Path(__file__).parents[2] / "notebooks" / "pictures"
NAME = "medsam-breast"


def opened(context, address, *texts, exact=False):
    """The page, once it shows the texts."""
    page = context.new_page()
    page.goto(address)
    for text in texts:
        page.get_by_text(text, exact=exact).first.wait_for(timeout=60_000)
    return page


def keep(page, name, tmp_path):
    """A picture of the drawn page, small enough for the repository, without the notes that lie over it."""
    for button in page.get_by_role("button", name=re.compile("^(close|dismiss|got it|not now)$", re.I)).all():
        if button.is_visible():
            button.click()
    drawn = "document.fonts.ready.then(() => new Promise((done) => requestAnimationFrame(() => setTimeout(done))))"
    page.evaluate(drawn)
    picture = tmp_path / f"07_{name}.png"
    page.screenshot(path=picture, animations="disabled")
    Image.open(picture).convert("RGB").quantize(256).save(picture, optimize=True)
    assert picture.stat().st_size < 300_000
    if os.environ.get("MEDSAM_KEEP_PICTURES"):
        PICTURES.mkdir(exist_ok=True)
        shutil.copy(picture, PICTURES)


def test_the_pages_show_curves_pictures_and_the_champion_and_ask_nobody_else(tmp_path, mlflow_server, client):
    sizes = {"train_limit": 12, "dev_limit": 6, "val_limit": 12}
    config = RunConfig(data="phantom-ultrasound", recipe="medsam", epochs=2, precision="fp32", **sizes)
    tracked = train_tracked(config, tmp_path / "first", experiment="breast", uri=mlflow_server.uri, show_progress=False)
    pages, asked = f"{mlflow_server.uri}/#", set()
    version = register(client, NAME, tracked.run_id, tmp_path / "first")
    client.set_registered_model_alias(NAME, "champion", version.version)
    runs = f"{pages}/experiments/{client.get_experiment_by_name('breast').experiment_id}/runs"
    with chromium() as browser:
        context = browser.new_context(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
        context.on("request", lambda request: asked.add(re.sub(r"^(\w+://[^/:]+).*", r"\1", request.url)))

        # Further down the page draws only what is scrolled to.
        page = opened(context, f"{runs}/{tracked.run_id}/model-metrics", "dev_dice", "dev_iou", "loss", exact=True)
        page.locator(".js-plotly-plot .trace").first.wait_for(timeout=60_000)
        keep(page, "run_page", tmp_path)

        page = opened(context, f"{runs}/{tracked.evaluation_id}/artifacts/qualitative.json", "tuned Dice")
        shown = "[...document.images].filter(i => i.complete && i.naturalWidth > 60 && i.offsetParent).length >= 4"
        page.wait_for_function(shown, timeout=60_000)
        keep(page, "table", tmp_path)

        keep(opened(context, f"{pages}/models/{NAME}", "Version 1", "champion"), "registry", tmp_path)
    outside = {place for place in asked if not place.endswith("://127.0.0.1")}
    assert outside <= {"blob:http", "data:image"}
