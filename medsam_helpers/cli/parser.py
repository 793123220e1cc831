"""What every command has: options that come from where a setting is declared, and what it is called with."""

import argparse
import types
from abc import abstractmethod
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn, Self, Union, get_args, get_origin

from pydantic import model_validator
from pydantic.fields import FieldInfo

from medsam_helpers.errors import ConfigError
from medsam_helpers.files import find_checkpoint
from medsam_helpers.sam.checkpoints import WEIGHTS
from medsam_helpers.settings import Settings
from medsam_helpers.training.recipes import Precision, Recipe

Result = dict[str, Any]


class Parser(argparse.ArgumentParser):
    """One line for a wrong argument, with where to look, in place of the whole usage."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        self.exit(2, f"medsam: {message} (see `{self.prog} --help`)\n")


class Command(Settings):
    """A command: its settings, and what it does. The docstring is its help."""

    EXAMPLE: ClassVar[str]
    POSITIONAL: ClassVar[tuple[str, ...]] = ()
    REQUIRED: ClassVar[tuple[str, ...]] = ()
    RESUMES: ClassVar[bool] = False

    @classmethod
    def add_to(cls, parser: argparse.ArgumentParser) -> None:
        """Give the command's parser its arguments."""
        add_settings(parser, cls)

    @abstractmethod
    def run(self, line: str) -> Result:
        """The JSON line, after prose was printed; `line` is the command line, for cards."""


class OfModel(Settings):
    """Settings of the commands that use a model as it is, or a fine-tuned one."""

    model: str | None = None
    """A name of `medsam weights --list`, or a path."""
    checkpoint: str | None = None
    """In place of a model: a folder that finetune wrote, or the name of one in checkpoints/."""
    precision: Precision | None = None
    """Of the encoder; default: as the checkpoint was trained, else auto."""
    tta: bool = False
    """Test-time augmentation: the mirror image too, and the mean of both answers; twice the encoding."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.model is None) == (self.checkpoint is None):
            raise ConfigError("pass either --model or --checkpoint")
        return self

    @property
    def folder(self) -> Path | None:
        """Where the checkpoint lies."""
        return find_checkpoint(self.checkpoint) if self.checkpoint else None

    def trained_with(self) -> dict[str, Any]:
        """The recipe of the checkpoint, if there is one."""
        from medsam_helpers.sam.tuned import read_card

        return read_card(self.folder).get("recipe", {}) if self.folder else {}

    def segmenter(self) -> Any:
        """The model, ready to be prompted."""
        from medsam_helpers.sam.segmenter import Segmenter

        precision = self.precision or self.trained_with().get("precision", "auto")
        return Segmenter.load(self.folder or str(self.model), precision=precision, tta=self.tta)


def tell_of(left_out: Collection[str], model: str | None) -> None:
    """Print which cases were left out, and that a model has learnt from public images: on these it is not tested."""
    if left_out:
        print(f"left out {len(left_out)}: {', '.join(left_out)}")
    note = WEIGHTS[model].note if model in WEIGHTS else ""
    if "not held-out" in note:
        print(f"{model}: {note}")


def add_settings(parser: argparse._ActionsContainer, settings: type[Settings], but: Collection[str] = ()) -> None:
    """Give a parser an option for each setting; what is not given stays out of the result.

    `jitter_1024` becomes `--jitter`: the unit stands in the name of a value, not of an option.
    Type, choices, default and help are those of the declaration; the names in `but` get none.
    """
    for name, declared in settings.model_fields.items():
        kinds = list(_kinds(declared.annotation))
        choices = [kind for kind in kinds if isinstance(kind, str)] if tuple not in kinds else []
        # A single choice is what only a function of one's own can take the place of.
        if name in (*settings.LABELS, *but) or len(choices) == 1:
            continue
        required = declared.is_required() or name in getattr(settings, "REQUIRED", ())
        options: dict[str, Any] = {"help": _help(declared, required or settings is Recipe)}
        if repeated := getattr(settings, "REPEATED", {}).get(name):
            options |= {"action": "append", "metavar": repeated}
            options |= {"nargs": len(repeated)} if isinstance(repeated, tuple) else {}
        elif choices:
            options |= {"choices": choices}
        elif bool in kinds:
            options |= {"action": argparse.BooleanOptionalAction if settings is Recipe else "store_true"}
        else:
            options |= {"metavar": next((word for kind, word in _WORDS.items() if kind in kinds), name.upper())}
        if name in getattr(settings, "POSITIONAL", ()):
            number = ("+" if required else "*") if tuple in kinds else None if required else "?"
            options |= {"nargs": number, "metavar": name.upper()}
            parser.add_argument(name, default=argparse.SUPPRESS, **options)
        else:
            flag = "--" + name.removesuffix("_1024").replace("_", "-")
            parser.add_argument(flag, dest=name, required=required, default=argparse.SUPPRESS, **options)


_WORDS = {int: "N", float: "F", tuple: "A,B", Path: "PATH"}


def _help(declared: FieldInfo, without_default: bool) -> str:
    """What the declaration says; a recipe's defaults are not those of the recipe that is asked for."""
    text = (declared.description or "").rstrip(".").replace("%", "%%").replace("\n", " ")
    shown = ",".join(declared.default) if isinstance(declared.default, tuple) else declared.default
    return text if without_default or shown in (None, False, "", ()) else f"{text} (default: {shown})"


def _kinds(annotation: Any) -> Iterator[Any]:
    """The types of an annotation, unions taken apart, and the words of its literals."""
    origin = get_origin(annotation)
    if origin is Literal:
        yield from get_args(annotation)
    elif origin in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from _kinds(part)
    else:
        yield origin or annotation
