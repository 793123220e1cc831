"""`Canvas`: what the browser shows and sends, without any model: image, boxes, points, status, uploads."""

import threading
from collections.abc import Callable, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets as t

from medsam_helpers.data.case import Case
from medsam_helpers.errors import MedsamError, PromptError
from medsam_helpers.geometry import check_boxes, check_points
from medsam_helpers.widgets.answers import image_png, mask_layer

HINT = "drag a box over the lesion"
_FOLDER = Path(__file__).parent


def as_boxes(boxes: Any, image: np.ndarray) -> list[list[float]]:
    """Boxes as the browser takes them; `PromptError`: one is no box of (4,) xyxy inside the image."""
    return check_boxes(boxes, image.shape[:2]).astype(float).round(2).tolist() if len(boxes) else []


def as_points(points: Any, image: np.ndarray) -> list[list[float]]:
    """Points (K, 3) of x, y, label as the browser takes them; `PromptError`: likewise."""
    if not len(points):
        return []
    values = np.asarray(points, np.float64)
    if values.ndim != 2 or values.shape[1] != 3 or not np.isin(values[:, 2], (0, 1)).all():
        raise PromptError(f"points must be (K, 3) of x, y and label 1 or 0, got shape {values.shape}")
    check_points(values[:, :2], image.shape[:2])
    return values.round(2).tolist()


def counts(boxes: Sized, points: Sized) -> str:
    """So many boxes and points, in words."""
    return f"{len(boxes)} box{'es' * (len(boxes) != 1)}, {len(points)} point{'s' * (len(points) != 1)}"


class Canvas(anywidget.AnyWidget):
    """The Python side of `box_prompt.js`; `BoxPrompt` puts the models behind it.

    Browser events arrive on another thread (JupyterLab's subshell) than the notebook's cells: `lock` makes them take
    turns. Nobody sees an exception there, so each ends in the status line and in `error`.
    """

    _esm = _FOLDER / "box_prompt.js"
    _css = _FOLDER / "box_prompt.css"

    # No echo: the browser knows what it sent, and needs its processor for the next picture.
    boxes = t.Any([]).tag(sync=True, echo_update=False)
    points = t.Any([]).tag(sync=True, echo_update=False)
    opacity = t.Float(0.45, min=0, max=1).tag(sync=True)
    outline = t.Bool(False, help="outline only, no fill").tag(sync=True)
    show_truth = t.Bool(True).tag(sync=True)
    status = t.Unicode(HINT).tag(sync=True)
    state = t.Enum(("ready", "busy", "error"), "ready").tag(sync=True)
    _image = t.Dict().tag(sync=True)
    _models = t.List(t.Unicode()).tag(sync=True)
    _answer = t.Dict().tag(sync=True)
    _request = t.Int(0).tag(sync=True, echo_update=False)
    _clipboard = t.Dict().tag(sync=True)
    _uploads = t.Bool(False).tag(sync=True)

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.RLock()
        self.error: Exception | None = None
        self._parts: list[bytes] = []

    @t.validate("boxes", "points")
    def _check_prompt(self, proposal: t.Bunch) -> list[list[float]]:
        check = as_boxes if proposal["trait"].name == "boxes" else as_points
        return check(proposal["value"], self.image)

    def set_state(self, sync_data: Mapping[str, Any]) -> None:
        """Take over what the browser sends; what is not valid is shown there and put back."""
        with self.lock:
            try:
                as_boxes(sync_data.get("boxes", ()), self.image)
                as_points(sync_data.get("points", ()), self.image)
            except Exception as error:
                self.fail(error)
                self.send_state(["boxes", "points"])
            else:
                super().set_state(sync_data)

    def copy_to_clipboard(self, text: str) -> None:
        """Put a text on the clipboard of whoever looks at the widget, as far as the browser lets it."""
        self._clipboard = {"text": text, "count": self._clipboard.get("count", 0) + 1}

    def accept_uploads(self, handler: Callable[[str, bytes], None]) -> None:
        """Offer to upload a file; the handler gets its name and content."""

        def collect(_: Any, content: Mapping[str, Any], buffers: Sequence[memoryview]) -> None:
            if content.get("do") == "upload":
                self._parts = [*(self._parts if content["part"] else []), bytes(buffers[0])]
                if len(self._parts) == content["parts"]:
                    handler(content["name"], b"".join(self._parts))

        self.on_msg(collect)
        self._uploads = True

    def say(self, text: str, state: str = "ready") -> None:
        """Show a text in the status line."""
        with self.hold_sync():
            self.state, self.status = state, text

    def fail(self, error: Exception, doing: str = "") -> None:
        """Show an error in the status line and keep it in `error`."""
        self.error = error
        kind = "" if isinstance(error, MedsamError) else type(error).__name__
        self.say(": ".join(filter(None, (doing, kind, str(error) or "no message"))), "error")

    def show(self, image: np.ndarray, truth: np.ndarray | None, name: str) -> None:
        """Send the image to the browser and keep a read-only copy; `DataError`: image or truth is of another kind."""
        image = np.array(image)
        Case(name, image, np.zeros(image.shape[:2], bool) if truth is None else truth)
        image.flags.writeable = False
        self.image, self.truth, self.name = image, truth, name
        height, width = image.shape[:2]
        outline = None if truth is None else mask_layer(truth)
        self._image = {"bytes": image_png(image), "name": name, "width": width, "height": height, "truth": outline}
