"""`box_prompt_demo()`: the box widget with pickers, upload and saving, for trying rather than programming."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ipywidgets as w

from medsam_helpers.data.reading import read_image
from medsam_helpers.errors import ConfigError
from medsam_helpers.widgets.box_prompt import BoxPrompt
from medsam_helpers.widgets.images import READ, Picture, PictureSource, picture_source
from medsam_helpers.widgets.predictors import Model, as_predict
from medsam_helpers.widgets.saving import python_call, save_mask, save_prompts

NOTHING = "(nothing)"
UPLOADS = "my uploads"


class BoxPromptDemo(w.VBox):
    """The widget with pickers of image and model, upload, undo, clear and saving; `canvas` is the `BoxPrompt` in it.

    Args:
        models: by name; each a name or folder that `Segmenter.load` takes, a `Segmenter`, or a function
            `predict(image, boxes, points)`. Default: `mobile-sam` as released. Loaded when first picked.
        data: names of data sources, or folders; the first one is shown.
        save_to: folder for masks and prompts that are saved; made with the first of them.
    Raises:
        ConfigError: no data source, or an unknown one.
    """

    def __init__(
        self,
        models: Mapping[str, Model] | None = None,
        data: Sequence[str | Path] = ("phantom", "phantom-ultrasound"),
        save_to: str | Path = "box_prompts",
    ) -> None:
        self._sources = {source.title: source for source in map(picture_source, data)}
        if not self._sources:
            raise ConfigError("the demo needs at least one data source: a name such as 'phantom', or a folder")
        self._models: dict[str, Model] = dict(models or {"zero-shot": "mobile-sam"})
        self._uploads: dict[str, Picture] = {}
        self._save_to = Path(save_to)
        self._quiet = False
        source, name = next(iter(self._sources.values())), next(iter(self._models))
        self.picture = source.load(source.names[0])
        predict = self._models[name] = as_predict(self._models[name])
        self.canvas = BoxPrompt(self.picture.image, {name: predict}, self.picture.truth, self.picture.name)

        self.source = _picker("Images", self._sources, source.title, 230)
        self.image = _picker("Image", source.names, source.names[0], 260)
        self.model = _picker("Model", self._models, name, 230)
        self.beside = _picker("Beside it", [NOTHING, *self._models], NOTHING, 260)
        hint = "a folder of images, or of a fine-tuned decoder, then Enter"
        self.folder = w.Text(placeholder=hint, continuous_update=False, layout=w.Layout(width="400px"))
        self.call = w.Textarea(layout=w.Layout(width="100%", height="150px", display="none"))
        self.buttons = {}
        for text, tip, act in (
            ("Propose", "find the lesions without a box; then correct by clicks, or draw a box", self.canvas.propose),
            ("Undo", "take back the last change", self.canvas.undo),
            ("Clear", "remove all boxes and points", self.canvas.clear),
            ("Save mask", "PNG at the image's own size", partial(self._save, save_mask, "mask", ".png")),
            ("Save prompts", "boxes and points as JSON", partial(self._save, save_prompts, "prompts", ".json")),
            ("Copy Python call", "the lines that give the same mask", self._copy),
        ):
            self.buttons[text] = w.Button(description=text, tooltip=tip, layout=w.Layout(width="auto"))
            self.buttons[text].on_click(partial(self._run, text.lower(), act))
        self._show_proposing()
        pickers = _row(self.source, self.image, self.model, self.beside, self.folder)
        super().__init__([pickers, self.canvas, _row(*self.buttons.values()), self.call])
        for field, doing, act in (
            (self.source, "images", lambda: self._open(self._sources[self.source.value])),
            (self.image, "reading the image", self._show_picture),
            (self.model, "loading the model", self._show_models),
            (self.beside, "loading the model", self._show_models),
            (self.folder, "opening the folder", self._open_folder),
        ):
            field.observe(partial(self._run, doing, act), "value")
        self.canvas.accept_uploads(lambda *file: self._run(file[0], partial(self._open_upload, *file)))

    def __repr__(self) -> str:
        return f"BoxPromptDemo({', '.join(self._models)}; {self.canvas!r})"

    def _run(self, doing: str, act: Callable[[], object], _: Any = None) -> None:
        """Do what was asked for; an error, which nobody would see otherwise, goes to the status line."""
        with self.canvas.lock:
            if not self._quiet:
                try:
                    act()
                except Exception as error:
                    self.canvas.fail(error, doing)

    def _offer(self, picker: w.Dropdown, options: Iterable[str], chosen: str) -> None:
        """Set options and choice of a picker without its callback, which would run for the choice in between."""
        self._quiet = True
        try:
            picker.options, picker.value = tuple(options), chosen
        finally:
            self._quiet = False

    def _open(self, source: PictureSource, name: str | None = None) -> None:
        self._sources[source.title] = source
        self._offer(self.source, self._sources, source.title)
        self._offer(self.image, source.names, name or source.names[0])
        self._show_picture()

    def _show_picture(self) -> None:
        self.picture = self._sources[self.source.value].load(self.image.value)
        self.call.layout.display = "none"
        self.canvas.set_image(self.picture.image, self.picture.truth, self.picture.name)

    def _open_upload(self, name: str, content: bytes) -> None:
        code = READ.format(name) + "  # the file you uploaded"
        self._uploads[name] = Picture(name, read_image(content), None, code)
        self._open(PictureSource(UPLOADS, list(self._uploads), self._uploads.__getitem__), name)

    def _show_models(self) -> None:
        shown = {name: self._models[name] for name in (self.model.value, self.beside.value) if name != NOTHING}
        for name, model in shown.items():
            if isinstance(model, str | Path):
                self.canvas.say(f"loading {name}...", "busy")
                shown[name] = self._models[name] = as_predict(model)
        self.canvas.set_models(shown)
        self._show_proposing()

    def _show_proposing(self) -> None:
        self.buttons["Propose"].layout.display = "" if self.canvas.proposes else "none"

    def _open_folder(self) -> None:
        folder = Path(self.folder.value.strip()).expanduser()
        if (folder / "run_card.json").is_file():
            self.canvas.say(f"loading {folder.name}...", "busy")
            self._models[folder.name] = as_predict(folder)
            self._offer(self.beside, [NOTHING, *self._models], self.beside.value)
            self._offer(self.model, self._models, folder.name)
            self._show_models()
        elif self.folder.value.strip():
            self._open(picture_source(folder))

    def _copy(self) -> None:
        self.call.value = python_call(self.canvas, self.picture.code)
        self.call.layout.display = ""
        self.canvas.say("the call is on the clipboard, and below")
        self.canvas.copy_to_clipboard(self.call.value)

    def _save(self, write: Callable[[BoxPrompt, Path], None], what: str, suffix: str) -> None:
        """Write to a file that is not there yet: nothing that was saved is overwritten."""
        stem = self._save_to / f"{Path(self.picture.name).stem}_{what}"
        path = Path(f"{stem}{suffix}")
        for count in itertools.count(2):
            if not path.exists():
                break
            path = Path(f"{stem}_{count}{suffix}")
        write(self.canvas, path)
        self.canvas.say(f"saved {path}")


box_prompt_demo = BoxPromptDemo


def _picker(label: str, options: Iterable[str], chosen: str, pixels: int) -> w.Dropdown:
    return w.Dropdown(options=tuple(options), value=chosen, description=label, layout=w.Layout(width=f"{pixels}px"))


def _row(*children: w.Widget) -> w.HBox:
    return w.HBox(children, layout=w.Layout(flex_flow="row wrap"))
