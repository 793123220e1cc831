"""`box_prompt_demo()`: the box widget with pickers, upload and saving, for trying rather than programming."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ipywidgets as w

from medsam_helpers.errors import ConfigError, DataError
from medsam_helpers.sam.segmenter import Segmenter
from medsam_helpers.widgets.box_prompt import BoxPrompt
from medsam_helpers.widgets.images import Picture, PictureSource, picture_source, read_upload
from medsam_helpers.widgets.inputs import Predict
from medsam_helpers.widgets.predictors import SegmenterPredictor, on_model_thread
from medsam_helpers.widgets.saving import python_call, save_mask, save_prompts

NOTHING = "(nothing)"
UPLOADS = "my uploads"
Model = str | Path | Segmenter | Predict


def box_prompt_demo(
    models: Mapping[str, Model] | None = None,
    data: Sequence[str | Path] = ("phantom", "phantom-ultrasound"),
    save_to: str | Path = "box_prompts",
) -> BoxPromptDemo:
    """The widget with pickers of image and model, upload, undo, clear and saving.

    Args:
        models: by name; each a name or folder that `Segmenter.load` takes, a `Segmenter`, or a function
            `predict(image, boxes, points)`. Default: `mobile-sam` as it comes. Loaded when first picked.
        data: names of data sources, or folders; the first one is shown.
        save_to: folder for masks and prompts that are saved; made with the first of them.
    """
    return BoxPromptDemo(models or {"zero-shot": "mobile-sam"}, data, save_to)


def _shown(doing: str) -> Callable[[Callable], Callable]:
    """Decorator of callbacks: an error, which nobody would see otherwise, goes to the status line."""

    def wrap(callback: Callable) -> Callable:
        @functools.wraps(callback)
        def run(self: BoxPromptDemo, *arguments: Any) -> None:
            with self.canvas.lock:
                if self._quiet:
                    return
                try:
                    callback(self, *arguments)
                except Exception as error:
                    self.canvas.fail(error, doing)

        return run

    return wrap


class BoxPromptDemo(w.VBox):
    """See `box_prompt_demo`; `canvas` is the `BoxPrompt` in it."""

    def __init__(self, models: Mapping[str, Model], data: Sequence[str | Path], save_to: str | Path) -> None:
        self._quiet = False
        self._models = dict(models)
        self._loaded: dict[str, Predict] = {}
        self._sources: dict[str, PictureSource] = {source.title: source for source in map(picture_source, data)}
        self._uploads: dict[str, Picture] = {}
        self._save_to = Path(save_to)
        if not self._sources:
            raise ConfigError("the demo needs at least one data source: a name such as 'phantom', or a folder")
        first = next(iter(self._sources.values()))
        self.picture = first.load(first.names[0])
        name = next(iter(self._models))
        self.canvas = BoxPrompt(self.picture.image, {name: self._load(name)}, self.picture.truth, self.picture.name)

        self.source = w.Dropdown(options=[*self._sources, UPLOADS], description="Images", layout=_wide(230))
        self.image = w.Dropdown(options=first.names, description="Image", layout=_wide(260))
        self.folder = _entry("a folder of images")
        self.model = w.Dropdown(options=list(self._models), description="Model", layout=_wide(230))
        self.beside = w.Dropdown(options=[NOTHING, *self._models], description="Beside it", layout=_wide(260))
        self.checkpoint = _entry("folder of a fine-tuned decoder")
        self.buttons = {
            text: w.Button(description=text, tooltip=tip, layout=w.Layout(width="auto"))
            for text, tip in {
                "Undo": "take back the last change",
                "Clear": "remove all boxes and points",
                "Save mask": "PNG at the image's own size",
                "Save prompts": "boxes and points as JSON",
                "Copy Python call": "the lines that give the same mask",
            }.items()
        }
        self.call = w.Textarea(layout=w.Layout(width="100%", height="150px"))
        self.call.layout.display = "none"
        super().__init__(
            [
                _row(self.source, self.image, self.folder),
                _row(self.model, self.beside, self.checkpoint),
                self.canvas,
                _row(*self.buttons.values()),
                self.call,
            ]
        )
        self._connect()

    def __repr__(self) -> str:
        return f"BoxPromptDemo({', '.join(self._models)}; {self.canvas!r})"

    def _connect(self) -> None:
        self.source.observe(self._on_source, "value")
        self.image.observe(self._on_image, "value")
        self.canvas.accept_uploads(self._on_upload)
        self.folder.observe(self._on_folder, "value")
        self.model.observe(self._on_model, "value")
        self.beside.observe(self._on_model, "value")
        self.checkpoint.observe(self._on_checkpoint, "value")
        actions = (self._undo, self._clear, self._save_mask, self._save_prompts, self._copy)
        for button, action in zip(self.buttons.values(), actions, strict=True):
            button.on_click(action)

    # Images

    @_shown("images")
    def _on_source(self, _: Any) -> None:
        names = list(self._uploads) if self.source.value == UPLOADS else self._sources[self.source.value].names
        if not names:
            raise DataError("nothing is uploaded yet: choose 'Your own file'")
        self._offer(self.image, names, names[0])
        self._show_picked()

    @_shown("reading the image")
    def _on_image(self, _: Any) -> None:
        self._show_picked()

    def _show_picked(self) -> None:
        name = self.image.value
        uploaded = self.source.value == UPLOADS
        self.picture = self._uploads[name] if uploaded else self._sources[self.source.value].load(name)
        self.call.layout.display = "none"
        self.canvas.set_image(self.picture.image, self.picture.truth, self.picture.name)

    @_shown("your file")
    def _on_upload(self, name: str, content: bytes) -> None:
        picture = read_upload(name, content)
        self._uploads[picture.name] = picture
        self._offer(self.source, self.source.options, UPLOADS)
        self._offer(self.image, list(self._uploads), picture.name)
        self._show_picked()

    @_shown("opening the folder")
    def _on_folder(self, _: Any) -> None:
        if self.folder.value.strip():
            source = picture_source(self.folder.value.strip())
            self._sources[source.title] = source
            self._offer(self.source, [*self._sources, UPLOADS], source.title)
            self._offer(self.image, source.names, source.names[0])
            self._show_picked()

    def _offer(self, picker: w.Dropdown, options: Sequence[str], chosen: str) -> None:
        """Set options and choice of a picker without its callback, which would run for the choice in between."""
        with self._quietly():
            picker.options = tuple(options)
            picker.value = chosen

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        self._quiet = True
        try:
            yield
        finally:
            self._quiet = False

    # Models

    def _load(self, name: str) -> Predict:
        if name not in self._loaded:
            model = self._models[name]
            if isinstance(model, Segmenter):
                self._loaded[name] = SegmenterPredictor(model)
            elif callable(model):
                self._loaded[name] = model
            else:
                self._loaded[name] = SegmenterPredictor(on_model_thread(Segmenter.load, model), source=model)
        return self._loaded[name]

    @_shown("loading the model")
    def _on_model(self, _: Any) -> None:
        self._show_models()

    def _show_models(self) -> None:
        names = [self.model.value] + [self.beside.value] * (self.beside.value not in (NOTHING, self.model.value))
        for name in names:
            if name not in self._loaded:
                self.canvas.say(f"loading {name}...", "busy")
        self.canvas.set_models({name: self._load(name) for name in names})

    @_shown("loading the checkpoint")
    def _on_checkpoint(self, _: Any) -> None:
        text = self.checkpoint.value.strip()
        if not text:
            return
        folder = Path(text).expanduser()
        name = next(n for n in (folder.name, str(folder)) if n not in self._models or self._models[n] == folder)
        self.canvas.say(f"loading {name}...", "busy")
        self._loaded[name] = SegmenterPredictor(on_model_thread(Segmenter.load, folder), source=folder)
        self._models[name] = folder
        self._offer(self.beside, [NOTHING, *self._models], self.beside.value)
        self._offer(self.model, list(self._models), name)
        self._show_models()

    # Buttons

    @_shown("undo")
    def _undo(self, _: Any) -> None:
        self.canvas.undo()

    @_shown("clear")
    def _clear(self, _: Any) -> None:
        self.canvas.clear()

    @_shown("saving the mask")
    def _save_mask(self, _: Any) -> None:
        self.canvas.say(f"saved {save_mask(self.canvas, self._free_path('mask.png'))}")

    @_shown("saving the prompts")
    def _save_prompts(self, _: Any) -> None:
        self.canvas.say(f"saved {save_prompts(self.canvas, self._free_path('prompts.json'))}")

    @_shown("copying the call")
    def _copy(self, _: Any) -> None:
        self.call.value = python_call(self.canvas, self.picture.code)
        self.call.layout.display = ""
        self.canvas.say("the call is on the clipboard, and below")
        self.canvas.copy_to_clipboard(self.call.value)

    def _free_path(self, ending: str) -> Path:
        """A file that is not there yet: nothing that was saved is overwritten."""
        stem, suffix = f"{Path(self.picture.name).stem}_{Path(ending).stem}", Path(ending).suffix
        names = (f"{stem}{'' if count == 1 else f'_{count}'}{suffix}" for count in range(1, 10**6))
        return next(path for name in names if not (path := self._save_to / name).exists())


def _wide(pixels: int) -> w.Layout:
    return w.Layout(width=f"{pixels}px")


def _row(*children: w.Widget) -> w.HBox:
    return w.HBox(children, layout=w.Layout(flex_flow="row wrap"))


def _entry(placeholder: str) -> w.Text:
    return w.Text(placeholder=f"{placeholder}, then Enter", continuous_update=False, layout=_wide(240))
