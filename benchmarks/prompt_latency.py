"""From the release of the mouse to the mask on the screen, and from picking an image to its being ready.

Both are timed inside the browser, by its own clock: JupyterLab on the loopback, a real kernel, headless Chromium, the
demo of `medsam_helpers.widgets`. The image is a phantom enlarged to 1024 pixels. `drag_to_mask_ms_median` runs from the
`pointerup` event to the first animation frame after the one that drew the mask, so that it has been on the screen;
`model_ms_median` is the part that `Segmenter` takes in the kernel, enlarging the mask included. `first_image_s` runs
from the change of the picker to the same moment of the status "ready"; the image was never encoded before.

    python benchmarks/prompt_latency.py [--drags N] [--images N] [--threads N]
"""
# make bench: --drags 10 --images 2

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from medsam_helpers.data.loading import load_data
from medsam_helpers.geometry import ImageTransform
from medsam_helpers.prompts import mask_to_boxes
from tools.lab import Notebook, chromium, jupyter_lab

DEMO = """
from medsam_helpers.widgets import box_prompt_demo
demo = box_prompt_demo(data=["images"])
demo
"""
# A clock in the page: `elapsed` is kept in the frame after the one in which the widget showed what was waited for. It
# is a promise, because a page that is asked again and again draws without pause, on the cores that the model needs.
CLOCK = """() => {
    const root = document.querySelector('.box-prompt');
    let started, tell, done = null;
    window.arm = () => { window.elapsed = new Promise((resolve) => { tell = resolve; }); };
    const watch = (condition) => { started = performance.now(); done = condition; };
    new MutationObserver(() => {
        if (!done || !done(root.dataset)) return;
        done = null;
        requestAnimationFrame(() => tell(performance.now() - started));
    }).observe(root, { attributes: true });
    addEventListener('pointerup', (event) => {
        const before = root.dataset.request;
        if (event.target.matches('.box-prompt-canvas'))
            watch(({ drawn, request }) => request !== before && drawn === request);
    }, true);
    document.querySelectorAll('.widget-dropdown select')[1].addEventListener('change', (event) => {
        const name = event.target.selectedOptions[0].label;
        watch(({ image, state }) => image === name && state === 'ready');
    }, true);
}"""


def enlarged_phantoms(folder: Path, count: int, side: int = 1024) -> list[tuple[int, int, int, int]]:
    """Write phantoms of that long side to a folder; their boxes."""
    boxes = []
    (folder / "images").mkdir()
    for case in load_data("phantom", train_limit=0, dev_limit=0, val_limit=count).val:
        transform = ImageTransform(case.size_hw, model_size=side)
        Image.fromarray(transform.image_to_model(case.image)).save(folder / "images" / f"{case.name}.png")
        boxes.append(tuple(transform.to_model(mask_to_boxes(case.mask)[0]).tolist()))
    return boxes


def main() -> None:
    """Drive the demo, print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--drags", type=int, default=30, help="on each image")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)

    drags, models, first = [], [], []
    with tempfile.TemporaryDirectory() as name, chromium() as browser:
        folder = Path(name)
        boxes = enlarged_phantoms(folder, args.images + 1)
        with jupyter_lab(folder) as address:
            page_size = {"width": 1300, "height": 1100}
            notebook = Notebook(browser.new_context(viewport=page_size), address, folder, [DEMO])
            page = notebook.page
            notebook.run(0)
            page.locator(".box-prompt[data-image][data-state=ready]").wait_for(timeout=120_000)
            page.evaluate(CLOCK)
            picker = page.locator(".widget-dropdown select").nth(1)

            # The first image was encoded when the demo was made, cold; its drags warm everything up.
            for index, box in enumerate(boxes):
                if index:
                    page.evaluate("arm()")
                    picker.select_option(index=index)
                    first.append(page.evaluate("elapsed") / 1000)
                for count in range(args.drags if index else 5):
                    page.evaluate("arm()")
                    drag(page, box if count == 0 else None)
                    milliseconds = page.evaluate("elapsed")
                    if index:
                        drags.append(milliseconds)
                        models.append(float(notebook.widget.get_attribute("data-ms")))
            assert notebook.outside_requests() == []
    print(
        json.dumps(
            {
                "drag_to_mask_ms_median": round(statistics.median(drags), 1),
                "model_ms_median": round(statistics.median(models), 1),
                "first_image_s": round(max(first), 2),
                "n": len(drags),
                "drag_to_mask_ms_p95": round(statistics.quantiles(drags, n=20)[-1], 1),
                "images": len(first),
                "threads": args.threads,
                "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            }
        )
    )


def drag(page, box: tuple[int, int, int, int] | None) -> None:
    """Draw the box; or move the one that is there by a little."""
    canvas = page.locator(".box-prompt-canvas").first
    place = canvas.bounding_box()
    words = canvas.get_attribute("aria-label").split(", ")[1].split()
    scale = place["width"] / int(words[0])
    if box is None:
        ((x0, y0, x1, y1),) = json.loads(page.locator(".box-prompt").get_attribute("data-boxes"))
        start = (x0 + x1) / 2, (y0 + y1) / 2
        end = start[0] + (12 if x0 < 20 else -12), start[1]
    else:
        start, end = box[:2], box[2:]
    page.mouse.move(place["x"] + start[0] * scale, place["y"] + start[1] * scale)
    page.mouse.down()
    page.mouse.move(place["x"] + end[0] * scale, place["y"] + end[1] * scale, steps=5)
    page.mouse.up()


if __name__ == "__main__":
    main()
