"""`BoxPrompt`: an image to drag boxes over and to click on, and the masks that a model gives back at once."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import traitlets as t

from medsam_helpers.widgets.answers import Answer, mask_layer, read_answer
from medsam_helpers.widgets.canvas import HINT, Canvas, as_boxes, as_points, counts
from medsam_helpers.widgets.predictors import Models, Predict, by_name


class BoxPrompt(Canvas):
    """An image, boxes and points on it, and the masks of one model or of several side by side.

    Boxes and points may be set from code too (`widget.boxes = [[120, 80, 310, 260]]`); the answer is there when the
    assignment returns. What goes wrong in a model is shown in the status line and kept in `error`.

    Args:
        image: (H, W, 3) uint8 RGB.
        predict: a `Segmenter`, or any function `predict(image, boxes, points)` of the image, boxes (N, 4) xyxy and
            points (K, 3) of x, y, label (1 foreground, 0 background), N or K possibly 0. It gives back a bool mask
            (H, W), one a box (N, H, W), or a pair of masks and scores (N,). Its method `prepare(image)`, if there is
            one, is called once an image; where its `proposes` is true, a proposal is asked for with `proposed=True`.
            A dict of several by name shows them side by side.
        truth: (H, W) bool, if known: drawn as an outline, and the Dice is told.
        name: of the image.
    Raises:
        DataError: image or truth is of another kind.
        ConfigError: there is no model.
    """

    def __init__(
        self, image: np.ndarray, predict: Models, truth: np.ndarray | None = None, name: str = "image"
    ) -> None:
        super().__init__()
        self.predictors: dict[str, Predict] = by_name(predict)
        self._models = list(self.predictors)
        self.on_msg(self._on_message)
        self.set_image(image, truth, name)

    def set_image(self, image: np.ndarray, truth: np.ndarray | None = None, name: str = "image") -> None:
        """Show another image; boxes, points and history start anew. Arguments and errors as for the class."""
        with self.lock:
            with self.hold_sync():
                self.show(image, truth, name)
                self.answers: dict[str, Answer] = {}
                self._history: list[tuple[list, list, bool]] = []
                self._place([], [], False)
                self._send_answers()
            self._prepare_and_ask()

    def set_models(self, predict: Models) -> None:
        """Ask another model, or several, about the same image, boxes and points; `ConfigError`: there is none."""
        predictors = by_name(predict)
        with self.lock:
            with self.hold_sync():
                self.predictors, self._models, self.answers = predictors, list(predictors), {}
                self._send_answers()
            self._prepare_and_ask()

    def prompt(self, boxes: Sequence = (), points: Sequence = ()) -> Answer | None:
        """The first model's answer to boxes (N, 4) xyxy and points (K, 3) of x, y, label; None without a prompt.

        `PromptError`: one lies outside the image; else whatever a model raised.
        """
        with self.lock:
            self._change(as_boxes(boxes, self.image), as_points(points, self.image), False)
            if self.error is not None:
                raise self.error
            return self.answer

    @property
    def proposes(self) -> bool:
        """Whether one of the models finds lesions by itself."""
        return any(getattr(predict, "proposes", False) for predict in self.predictors.values())

    def propose(self) -> None:
        """Let models find the lesions, where one can; clicks correct what they found, a box takes its place."""
        with self.lock:
            if self.proposes:
                self._change([], [], True)

    def undo(self) -> None:
        """Take back the last change."""
        with self.lock:
            if self._history:
                self._place(*self._history.pop())
                self._ask()

    def clear(self) -> None:
        """Take away all boxes and points; `undo` brings them back."""
        with self.lock:
            self._change([], [], False)

    def prompts(self) -> tuple[np.ndarray, np.ndarray, bool]:
        """Boxes (N, 4) and points (K, 3), as the models got them, and whether the points are on a proposal."""
        boxes, points, proposed = self._asked
        return np.array(boxes, np.float32).reshape(-1, 4), np.array(points, np.float32).reshape(-1, 3), proposed

    @property
    def answer(self) -> Answer | None:
        """The first model's answer; None before there is one."""
        return self.answers.get(next(iter(self.predictors)))

    @property
    def mask(self) -> np.ndarray | None:
        """(H, W) bool: the first model's mask, all boxes together."""
        return self.answer.mask if self.answer else None

    @property
    def dice(self) -> float | None:
        """Of the first model's mask with the truth, where this is known."""
        return self.answer.dice if self.answer else None

    def __repr__(self) -> str:
        height, width = self.image.shape[:2]
        about = f"{self.name}, {width} x {height}, {', '.join(self._models)}"
        return f"BoxPrompt({about}: {counts(self.boxes, self.points)})"

    @t.observe("boxes", "points")
    def _on_prompt(self, _: t.Bunch) -> None:
        with self.lock:
            self._change(self.boxes, self.points, self._asked[2] and not self.boxes)

    def _on_message(self, _: Any, content: Mapping[str, Any], __: Sequence[memoryview]) -> None:
        if content.get("do") == "undo":  # Ctrl+Z on the canvas
            self.undo()

    def _change(self, *asked: Any) -> None:
        """Set boxes, points and whether they are on a proposal, and ask the models where that is something new."""
        if asked != self._asked:
            self._history.append(self._asked)
            self._place(*asked)
            self._ask()

    def _place(self, boxes: list, points: list, proposed: bool) -> None:
        """Set all without asking the models: `_on_prompt` is told when both are set, and finds nothing new."""
        self._asked = (boxes, points, proposed)
        with self.hold_sync(), self.hold_trait_notifications():
            self.boxes, self.points = boxes, points

    def _prepare_and_ask(self) -> None:
        """Let the models encode the image, then answer what is on the canvas."""
        for name, predict in self.predictors.items():
            if hasattr(predict, "prepare"):
                self.say(f"{name}: encoding {self.name}...", "busy")
                try:
                    predict.prepare(self.image)
                except Exception as error:
                    self.fail(error, f"{name}: encoding {self.name}")
                    return
        self._ask()

    def _ask(self) -> None:
        """Ask the models about what is on the canvas, and send their masks."""
        self.answers, self.error = {}, None
        with self.hold_sync():
            self._ask_models(*self.prompts())
            self._send_answers()

    def _ask_models(self, boxes: np.ndarray, points: np.ndarray, proposed: bool) -> None:
        for name, predict in self.predictors.items():
            alone: dict[str, Any] = {"proposed": True} if proposed and getattr(predict, "proposes", False) else {}
            if not (alone or len(boxes) or points[:, 2].any()):
                continue
            started = time.perf_counter()
            try:
                result = predict(self.image, boxes, points, **alone)
                seconds = time.perf_counter() - started
                self.answers[name] = read_answer(result, self.image.shape[:2], self.truth, seconds)
            except Exception as error:
                self.fail(error, name)
                return
        if self.answers:
            self.say(f"{'proposed, ' * proposed}{counts(boxes, points)}; answered in {self._milliseconds():.0f} ms")
        else:
            self.say("ready: click on the lesion too, or drag a box" if len(points) else f"ready: {HINT}")

    def _milliseconds(self) -> float:
        return 1000 * sum(answer.seconds for answer in self.answers.values())

    def _send_answers(self) -> None:
        answers = [self.answers.get(name) for name in self._models]
        self._answer = {
            "request": self._request,
            "ms": self._milliseconds(),
            "layers": [mask_layer(answer.mask) if answer else None for answer in answers],
            "captions": [answer.caption() if answer else "" for answer in answers],
        }
