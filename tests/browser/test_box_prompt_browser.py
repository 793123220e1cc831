"""The box widget as a person meets it: JupyterLab, a real kernel with the real light model, a real browser."""

import io
import json

import numpy as np
import pytest
from lab import Notebook, chromium, jupyter_lab
from PIL import Image
from playwright.sync_api import expect

from medsam_helpers.data.loading import load_data
from medsam_helpers.evaluation.metrics import dice
from medsam_helpers.prompts import mask_to_boxes
from medsam_helpers.sam.segmenter import Segmenter

pytestmark = [pytest.mark.browser, pytest.mark.slow]

DEMO = [
    "from medsam_helpers.widgets import box_prompt_demo\n"
    "demo = box_prompt_demo({'zero-shot': 'mobile-sam', 'again': 'mobile-sam'})\ndemo",
    "import time\nfrom pathlib import Path\nwhile not Path('go').exists(): time.sleep(0.1)",
]
OWN = [
    """
import time
from pathlib import Path
import numpy as np
from medsam_helpers.widgets import BoxPrompt

asked = []

def slow(image, boxes, points):
    asked.append(boxes.tolist())
    while Path("hold").exists():  # the test says how long this model takes
        time.sleep(0.05)
    mask = np.zeros(image.shape[:2], bool)
    for x0, y0, x1, y1 in boxes.astype(int):
        mask[y0:y1, x0:x1] = True
    return mask

widget = BoxPrompt(np.full((300, 400, 3), 120, np.uint8), slow, name="gray")
widget
""",
    "print(len(asked), widget.boxes)",
    "import os; os._exit(1)",
]
ANSWERED = """request => {
    const { dataset } = document.querySelector('.box-prompt');
    return Number(dataset.drawn) === request && Number(dataset.request) === request;
}"""


class Canvas:
    """What a person does with mouse and keys, in pixels of the image."""

    def __init__(self, notebook: Notebook) -> None:
        self.notebook, self.page = notebook, notebook.page

    def data(self, name):
        return self.notebook.widget.get_attribute(f"data-{name}")

    boxes = property(lambda self: json.loads(self.data("boxes")))
    points = property(lambda self: json.loads(self.data("points")))
    request = property(lambda self: int(self.data("request") or 0))
    caption = property(lambda self: self.notebook.widget.locator("figcaption").inner_text())

    def element(self, pane=0):
        return self.notebook.widget.locator("canvas").nth(pane)

    def at(self, x, y, pane=0):
        """The place on the page of an image's pixel, as long as the whole image is shown."""
        frame = self.element(pane).bounding_box()
        width, height = self.size
        return frame["x"] + x * frame["width"] / width, frame["y"] + y * frame["height"] / height

    @property
    def size(self):
        words = self.element().get_attribute("aria-label").split(", ")[1].split()
        return int(words[0]), int(words[2])

    def drag(self, start, end, pane=0, escape=False):
        self.page.mouse.move(*self.at(*start, pane))
        self.page.mouse.down()
        self.page.mouse.move(*self.at(*end, pane), steps=4)
        if escape:
            self.page.keyboard.press("Escape")
        self.page.mouse.up()

    def click(self, x, y, pane=0):
        self.page.mouse.click(*self.at(x, y, pane))

    def tool(self, name):
        self.notebook.widget.locator(f"[data-tool={name}]").click()

    def answered(self):
        """Wait until the mask of the latest prompt is on the screen."""
        self.page.wait_for_function(ANSWERED, arg=self.request, timeout=30_000)

    def says(self, text):
        expect(self.notebook.widget.get_by_role("status")).to_contain_text(text, timeout=30_000)

    def painted(self):
        """Wait until the browser has drawn what was changed so far."""
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def pixel(self, x, y, pane=0):
        """RGB that the canvas shows at a pixel of the image."""
        width, height = self.size
        return self.element(pane).evaluate(
            """(canvas, [x, y]) => [...canvas.getContext('2d').getImageData(
                Math.round(x * canvas.width), Math.round(y * canvas.height), 1, 1).data].slice(0, 3)""",
            [(x + 0.5) / width, (y + 0.5) / height],
        )

    def button(self, text):
        self.page.get_by_role("button", name=text, exact=True).click()

    def choose(self, label, option):
        self.page.get_by_label(label, exact=True).select_option(option)

    def upload(self, name, content):
        with self.page.expect_file_chooser() as chooser:
            self.page.get_by_role("button", name="Your own file").click()
        file = {"name": name, "mimeType": "application/octet-stream", "buffer": content}
        chooser.value.set_files(file, timeout=120_000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="module")
def open_notebook(folder):
    """Opens a notebook, runs its first cell and gives its canvas; checks that no script failed and nothing went out."""
    opened = []
    with jupyter_lab(folder) as address, chromium() as browser:

        def open_it(name, cells, **options):
            context = browser.new_context(viewport={"width": 1300, "height": 1150}, **options)
            context.grant_permissions(["clipboard-read", "clipboard-write"])
            notebook = Notebook(context, address, folder, cells, name)
            opened.append(notebook)
            notebook.run(0)
            notebook.page.locator(".box-prompt[data-image]").wait_for(timeout=120_000)
            return Canvas(notebook)

        yield open_it
    assert [notebook.complaints + notebook.outside_requests() for notebook in opened] == [[]] * len(opened)
    assert all(notebook.requests for notebook in opened)


@pytest.fixture(scope="module")
def opened_demo(open_notebook):
    return open_notebook("demo.ipynb", DEMO)


@pytest.fixture(scope="module")
def own(open_notebook):
    return open_notebook("own.ipynb", OWN)


@pytest.fixture
def demo(opened_demo):
    if opened_demo.data("image") != "endoscopy-val-0000":
        opened_demo.choose("Images", "phantom")
        opened_demo.choose("Image", "endoscopy-val-0000")
        opened_demo.page.locator(".box-prompt[data-image='endoscopy-val-0000']").wait_for()
    opened_demo.choose("Model", "zero-shot")
    opened_demo.choose("Beside it", "(nothing)")
    opened_demo.button("Clear")
    opened_demo.page.wait_for_function(
        "() => ['boxes', 'points'].every((name) => document.querySelector('.box-prompt').dataset[name] === '[]')"
    )
    opened_demo.tool("box")
    return opened_demo


@pytest.fixture(scope="module")
def case():
    return load_data("phantom", train_limit=0, dev_limit=0).val[0]


@pytest.fixture(scope="module")
def box(case):
    return mask_to_boxes(case.mask)[0].astype(int).tolist()


@pytest.fixture
def boxed(demo, box):
    """The demo with a box round the lesion, and its mask on the screen."""
    demo.drag(box[:2], box[2:])
    demo.answered()
    return demo


def middle(box):
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def test_a_drag_gives_mask_score_and_dice_and_the_mask_is_the_segmenters(demo, folder, case, box):
    plain = demo.pixel(*middle(box))
    demo.drag(box[:2], box[2:])
    demo.answered()
    assert np.abs(np.subtract(demo.boxes, [box])).max() <= 1
    assert "score 0." in demo.caption
    assert "Dice 0.9" in demo.caption
    assert np.abs(np.subtract(demo.pixel(*middle(box)), plain)).sum() > 60, "the mask is tinted"
    demo.button("Save mask")
    demo.says("saved")
    mask = np.asarray(Image.open(folder / "box_prompts" / "endoscopy-val-0000_mask.png")) > 0
    segmenter = Segmenter.load("mobile-sam", precision="fp32")
    assert dice(mask, segmenter.predict(case.image, boxes=np.array(demo.boxes)).masks[0, 0]) > 0.999


def test_a_box_is_moved_by_its_inside_and_resized_by_edge_and_corner(demo):
    demo.drag((100, 60), (200, 160))
    x0, y0, x1, y1 = demo.boxes[0]
    demo.drag((150, 110), (170, 130))
    assert demo.boxes[0] == pytest.approx([x0 + 20, y0 + 20, x1 + 20, y1 + 20], abs=1)
    x0, y0, x1, y1 = demo.boxes[0]
    demo.drag((x1, (y0 + y1) / 2), (x1 + 30, y0))
    assert demo.boxes[0] == pytest.approx([x0, y0, x1 + 30, y1], abs=1)
    demo.drag((x0, y0), (x0 - 15, y0 - 10))
    assert demo.boxes[0] == pytest.approx([x0 - 15, y0 - 10, x1 + 30, y1], abs=1)
    demo.drag((150, 110), (-400, 110))
    assert demo.boxes[0][0] == 0, "stops at the image's edge"
    assert demo.boxes[0][2] - demo.boxes[0][0] == pytest.approx(x1 - x0 + 45, abs=2)
    assert len(demo.boxes) == 1
    demo.answered()


def test_several_boxes_also_inside_each_other_and_escape_ends_a_drag(demo):
    before = demo.request
    demo.click(50, 50)
    demo.drag((40, 40), (100, 100), escape=True)
    assert (demo.boxes, demo.request) == ([], before), "neither a click nor half a drag makes a box"
    demo.drag((20, 20), (120, 120))
    demo.drag((200, 200), (300, 300))
    demo.page.keyboard.down("Control")
    demo.drag((220, 220), (280, 280))
    demo.page.keyboard.up("Control")
    demo.answered()
    assert demo.boxes[2] == pytest.approx([220, 220, 280, 280], abs=1)
    demo.says("3 boxes")
    assert demo.caption.count("0.") >= 3
    demo.drag((70, 70), (90, 90), escape=True)
    assert demo.boxes[0] == pytest.approx([20, 20, 120, 120], abs=1), "back where it was"


def test_everything_can_be_done_by_keyboard_and_lab_keeps_its_hands_off(demo):
    cells = demo.page.locator(".jp-CodeCell").count()
    demo.element().focus()
    demo.element().press("Enter")
    x0, y0, x1, y1 = demo.boxes[0]
    for key in ("ArrowRight", "ArrowDown", "Control+ArrowRight", "Shift+ArrowDown", "Shift+Control+ArrowLeft"):
        demo.element().press(key)
    assert demo.boxes == [[x0 + 11, y0 + 1, x1 + 1, y1 + 2]]
    demo.answered()
    assert f"selected box 1: {x0 + 11} {y0 + 1} {x1 + 1} {y1 + 2}" in demo.element().get_attribute("aria-label")
    demo.element().press("f")
    demo.element().press("ArrowLeft")
    demo.element().press("b")
    assert [label for *_, label in demo.points] == [1, 0]
    demo.element().press("n")
    demo.element().press("Delete")
    assert (demo.boxes, len(demo.points)) == ([], 2)
    demo.answered()
    demo.element().press("Control+z")
    demo.page.wait_for_function("document.querySelector('.box-prompt').dataset.boxes !== '[]'")
    for key in ("d", "d", "x", "a", "Escape"):  # Lab's: delete, cut and add a cell
        demo.element().press(key)
    assert demo.page.locator(".jp-CodeCell").count() == cells
    demo.element().press("Tab")
    assert demo.page.evaluate("document.activeElement.tagName") != "CANVAS", "the focus can leave"


def test_clicks_refine_the_mask_and_a_second_click_takes_a_point_away(boxed, box):
    boxed.tool("background")
    boxed.click(box[0] + 40, middle(box)[1])
    boxed.answered()
    boxed.tool("foreground")
    boxed.click(*middle(box))
    boxed.answered()
    assert [label for *_, label in boxed.points] == [0, 1]
    boxed.says("1 box, 2 points")
    boxed.click(*boxed.points[0][:2])
    boxed.answered()
    assert [label for *_, label in boxed.points] == [1]


def test_opacity_outline_and_truth_are_drawn_at_once(boxed, box):
    shown = {}
    for opacity in (0, 0.5, 1):
        boxed.page.get_by_label("Opacity").fill(str(opacity))
        boxed.painted()
        shown[opacity] = np.array(boxed.pixel(*middle(box)))
    assert np.abs(shown[1] - [0xF0, 0xE4, 0x42]).max() <= 2, "opaque is the mask's colour"
    assert np.abs(shown[0.5] - (shown[0] + shown[1]) / 2).max() <= 3
    boxed.page.get_by_label("Outline only").check()
    boxed.painted()
    assert np.abs(boxed.pixel(*middle(box)) - shown[0]).max() <= 2
    picture = boxed.element().screenshot()
    boxed.page.get_by_label("Truth").uncheck()
    boxed.painted()
    assert boxed.element().screenshot() != picture
    boxed.page.get_by_label("Truth").check()
    boxed.page.get_by_label("Outline only").uncheck()
    boxed.page.get_by_label("Opacity").fill("0.45")


def test_zoom_keeps_boxes_in_pixels_of_the_image(demo):
    frame = demo.element().bounding_box()
    corner = frame["x"] + 5, frame["y"] + 5
    demo.page.mouse.move(*corner)
    demo.page.evaluate("window.turns = 0; addEventListener('wheel', () => { window.turns += 1 }, true)")
    demo.page.keyboard.down("Control")
    for _ in range(4):
        demo.page.mouse.wheel(0, -200)
    demo.page.wait_for_function("window.turns === 4")
    demo.page.keyboard.up("Control")
    demo.painted()
    demo.page.mouse.move(frame["x"] + 100, frame["y"] + 100)
    demo.page.mouse.down()
    demo.page.mouse.move(frame["x"] + 300, frame["y"] + 200, steps=3)
    demo.page.mouse.up()
    demo.answered()
    x0, y0, x1, y1 = demo.boxes[0]
    per_pixel = 200 / (x1 - x0)
    whole = frame["width"] / demo.size[0]
    assert per_pixel / whole == pytest.approx(np.exp(2), rel=0.1), "four turns of the wheel"
    assert (x1 - x0) / (y1 - y0) == pytest.approx(2, rel=0.1)
    assert x0 == pytest.approx((5 + 95 / np.exp(2)) / whole, abs=2)
    demo.tool("pan")
    before = demo.element().screenshot()
    demo.drag((150, 150), (100, 100))
    demo.painted()
    assert demo.element().screenshot() != before
    assert demo.boxes == [[x0, y0, x1, y1]]
    demo.page.get_by_role("button", name="show the whole image").click()


def test_two_models_stand_side_by_side_under_the_same_box(boxed, box):
    boxed.choose("Beside it", "again")
    boxed.page.wait_for_function("document.querySelectorAll('.box-prompt canvas').length === 2")
    expect(boxed.notebook.widget.locator("figcaption strong")).to_have_text(["zero-shot", "again"])
    expect(boxed.notebook.widget.locator(".box-prompt-caption")).to_contain_text(["Dice", "Dice"])
    boxed.painted()
    boxed.drag((box[0], box[1]), (box[0] + 10, box[1] + 10), pane=1)
    boxed.answered()
    assert boxed.boxes[0][:2] == pytest.approx([box[0] + 10, box[1] + 10], abs=2), "a box is moved in either picture"


def test_the_call_is_copied_to_the_clipboard(boxed):
    boxed.button("Copy Python call")
    boxed.says("clipboard")
    code = boxed.page.locator(".widget-textarea textarea").first.input_value()
    copied = "async (code) => (await navigator.clipboard.readText()) === code"
    boxed.page.wait_for_function(copied, arg=code)


def test_a_large_upload_comes_through(demo):
    content = io.BytesIO()
    Image.new("RGB", (3200, 2400), (120, 60, 60)).save(content, "PNG", compress_level=0)
    assert content.tell() > 20_000_000
    demo.upload("large.png", content.getvalue())
    demo.page.locator(".box-prompt[data-image='large.png']").wait_for(timeout=120_000)
    assert demo.size == (3200, 2400)
    demo.drag((1000, 1000), (2000, 2000))
    demo.answered()
    assert demo.boxes[0] == pytest.approx([1000, 1000, 2000, 2000], abs=5)
    assert ("score" in demo.caption, "Dice" in demo.caption) == (True, False), "the truth of an upload is not known"


def test_a_busy_kernel_does_not_keep_the_canvas_from_answering(demo, folder, box):
    demo.notebook.run(1)
    demo.page.wait_for_function("window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'busy'")
    demo.drag(box[:2], (box[2] - 30, box[3] - 30))
    demo.drag((box[2] - 30, box[3] - 30), box[2:])
    demo.answered()
    prompt = demo.notebook.cell(1).locator(".jp-InputPrompt")
    assert prompt.inner_text() == "[*]:", "the cell was still running"
    assert np.abs(np.subtract(demo.boxes, [box])).max() <= 1
    (folder / "go").touch()
    expect(prompt).not_to_have_text("[*]:")


def test_after_a_reload_of_the_page_everything_is_there_again(boxed, box):
    boxes, caption = boxed.boxes, boxed.caption
    boxed.notebook.save()
    boxed.notebook.open()
    boxed.page.locator(".box-prompt[data-drawn]").wait_for(timeout=60_000)
    assert (boxed.boxes, boxed.caption) == (boxes, caption)
    boxed.drag((box[0], box[1]), (box[0] + 20, box[1] + 20))
    boxed.answered()
    assert boxed.boxes[0][:2] == pytest.approx([box[0] + 20, box[1] + 20], abs=2)


def test_fast_drags_on_a_slow_model_leave_the_last_box_right(own, folder):
    (folder / "hold").touch()
    own.drag((40, 40), (90, 100))
    for _ in range(5):
        x0, _, x1, _ = own.boxes[0]
        own.drag(((x0 + x1) / 2, 70), ((x0 + x1) / 2 + 20, 70))
    (folder / "hold").unlink()
    own.answered()
    assert own.boxes[0] == pytest.approx([140, 40, 190, 100], abs=5)
    asked, _, told = own.notebook.output(1).partition(" ")
    assert json.loads(told) == own.boxes
    assert int(asked) <= 4, "drags that came while the model was busy were answered together"
    assert own.data("state") == "ready"


def test_a_kernel_that_died_is_noticed(own):
    own.notebook.run(2)
    own.page.locator(".jp-Dialog").wait_for(timeout=60_000)  # Lab says that the kernel will restart
    own.page.keyboard.press("Enter")
    own.drag((100, 200), (200, 280))
    own.says("no answer from the kernel")
    assert own.data("state") == "error"


def test_touch_draws_pinches_and_the_screen_is_sharp(open_notebook):
    canvas = open_notebook("touch.ipynb", OWN[:1], has_touch=True, device_scale_factor=2)
    ratio = canvas.element().evaluate("canvas => canvas.width / canvas.clientWidth")
    assert ratio == pytest.approx(2, abs=0.01)
    session = canvas.page.context.new_cdp_session(canvas.page)

    def touch(kind, *places):
        points = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(canvas.at(*place) for place in places)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", (100, 100))
    for x in (150, 200, 250):
        touch("touchMove", (x, x - 50))
    touch("touchEnd")
    canvas.answered()
    assert canvas.boxes[0] == pytest.approx([100, 100, 250, 200], abs=1)
    before = canvas.element().screenshot()
    touch("touchStart", (150, 150))
    touch("touchStart", (150, 150), (200, 150))
    for x in (230, 260, 300):
        touch("touchMove", (150, 150), (x, 150))
    touch("touchEnd")
    canvas.painted()
    assert canvas.element().screenshot() != before, "zoomed"
    assert len(canvas.boxes) == 1, "two fingers draw no box"
