"""Takes the picture of the demo that notebook 06 shows to readers on GitHub: a phantom, zero-shot beside fine-tuned.

python tools/make_picture.py
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from lab import Notebook, chromium, jupyter_lab
from PIL import Image

from medsam_helpers.data.loading import load_data
from medsam_helpers.evaluation.predictors import case_boxes
from medsam_helpers.runs.finetune import get_or_train
from medsam_helpers.runs.settings import config_from_environment

OUTPUT = Path(__file__).resolve().parents[1] / "notebooks" / "pictures" / "box_prompt.png"
CASE = "endoscopy-val-0004"


def main() -> None:
    """Open the demo, draw a box, keep the picture."""
    run = get_or_train(config_from_environment(precision="fp32"))
    cases = load_data("phantom", train_limit=0, dev_limit=0).val
    box = case_boxes(cases[cases.names.index(CASE)], "union", 20, seed=0)[0].round().tolist()
    cell = f"""
from medsam_helpers.widgets import box_prompt_demo
demo = box_prompt_demo({{"zero-shot": "mobile-sam", "fine-tuned": {str(run)!r}}})
demo.image.value = {CASE!r}
demo.beside.value = "fine-tuned"
demo.canvas.boxes = [{box}]
demo
"""
    with tempfile.TemporaryDirectory() as folder, jupyter_lab(Path(folder)) as address, chromium() as browser:
        page_size = {"width": 1330, "height": 1000}
        notebook = Notebook(browser.new_context(viewport=page_size), address, Path(folder), [cell])
        notebook.page.evaluate("jupyterapp.commands.execute('application:toggle-left-area')")
        notebook.run(0)
        notebook.page.locator(".box-prompt[data-drawn]").wait_for(timeout=120_000)
        notebook.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
        output = notebook.page.locator(".jp-OutputArea-output").first.screenshot()
    picture = Image.open(io.BytesIO(output)).convert("RGB")
    # A palette makes the file a third as large, and nobody sees it.
    picture.quantize(200, dither=Image.Dither.FLOYDSTEINBERG).save(OUTPUT, optimize=True)
    print(f"{OUTPUT}: {picture.width} x {picture.height}, {OUTPUT.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
