"""`VideoPrompt`: a slider through the frames, the box widget on each, and the masks of all."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ipywidgets as w
import numpy as np

from medsam_helpers.data.reading import write_mask
from medsam_helpers.errors import PromptError
from medsam_helpers.files import new_folder
from medsam_helpers.video.tracking import BoxTracker, Frame, Tracker, frame_image, track
from medsam_helpers.widgets.answers import Answer
from medsam_helpers.widgets.box_prompt import BoxPrompt
from medsam_helpers.widgets.predictors import on_model_thread


class _FrameCanvas(BoxPrompt):
    """The canvas on one frame: without a prompt it shows what was tracked there, and no model is asked."""

    tracked: np.ndarray | None = None

    def _prepare_and_ask(self) -> None:
        self._ask()  # the slider does not wait for an encoder

    def _ask_models(self, boxes: np.ndarray, points: np.ndarray, proposed: bool) -> None:
        super()._ask_models(boxes, points, proposed)
        if not self.answers and self.error is None and self.tracked is not None:
            name = next(iter(self.predictors))
            self.answers = {name: Answer(self.tracked[None], None, None, 0.0)}


class VideoPrompt(w.VBox):
    """A box on a frame, *Track*, a better box where it went wrong, *Track* again, *Save masks*.

    Args:
        frames: see `track`; `video.frames.frame_files` gives those of a folder or a video file.
        model: a `Segmenter`, or what else `BoxPrompt` takes, which then needs a `tracker` beside it.
        tracker: takes the masks from frame to frame; default: a `BoxTracker` with the segmenter.
        save_to: a new folder for the masks.
    """

    def __init__(
        self, frames: Sequence[Frame], model: Any, tracker: Tracker | None = None, save_to: str | Path = "tracked"
    ) -> None:
        self.frames, self._save_to = frames, Path(save_to)
        self.tracker = tracker or BoxTracker(model)
        self.prompts: dict[int, np.ndarray] = {}  # by frame the mask that was prompted there
        self.masks: dict[int, np.ndarray] = {}  # by frame the mask that was tracked
        self.canvas = _FrameCanvas(frame_image(frames[0]), model, name="frame 0")
        self.slider = w.IntSlider(0, 0, len(frames) - 1, description="Frame", layout=w.Layout(width="60%"))
        acts = {"Track": self.track, "Save masks": self.save}
        self.buttons = {text: w.Button(description=text) for text in acts}
        super().__init__([self.slider, self.canvas, w.HBox(list(self.buttons.values()))])
        self.slider.observe(lambda change: self._run(lambda: self._show(change.old, change.new)), "value")
        for text, act in acts.items():
            self.buttons[text].on_click(lambda _, act=act: self._run(act))

    def track(self) -> None:
        """Follow the lesion from the frames that hold a prompt to all others; `PromptError`: none does."""
        shown = self.slider.value
        self._note(shown)
        self.canvas.say("tracking...", "busy")
        answers = on_model_thread(lambda: list(track(self.tracker, self.frames, self.prompts)))
        self.masks = {number: answer.mask for number, answer in answers}
        self._show(shown, shown)
        lost = sum(not mask.any() for mask in self.masks.values())
        self.canvas.say(f"{len(self.masks)} masks; empty, the lesion lost or out of sight, in {lost}")

    def save(self) -> None:
        """Write all masks as PNG, 0 and 255; `PromptError`: nothing was tracked yet."""
        if not self.masks:
            raise PromptError("there are no masks to save yet: draw a box on a frame, then Track")
        with new_folder(self._save_to) as folder:
            for number, mask in self.masks.items():
                write_mask(mask, folder / f"{number:06d}.png")
        self.canvas.say(f"saved {len(self.masks)} masks in {self._save_to}")

    def _note(self, number: int) -> None:
        """Keep what is prompted on the frame that is shown."""
        if (self.canvas.boxes or self.canvas.points) and self.canvas.mask is not None:
            self.prompts[number] = self.canvas.mask

    def _show(self, before: int, number: int) -> None:
        self._note(before)
        self.canvas.tracked = self.masks.get(number, self.prompts.get(number))
        self.canvas.set_image(frame_image(self.frames[number]), name=f"frame {number}")

    def _run(self, act: Callable[[], None]) -> None:
        """Do what was asked for; an error, which nobody would see otherwise, goes to the status line."""
        with self.canvas.lock:
            try:
                act()
            except Exception as error:
                self.canvas.fail(error)
