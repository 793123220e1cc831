"""`RunConfig`: what a run is made of, and the profiles that fill it in."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args

from medsam_helpers.errors import ConfigError
from medsam_helpers.files import find_checkpoint
from medsam_helpers.prompts import BoxMode
from medsam_helpers.training.recipes import Recipe, get_recipe


@dataclass(frozen=True)
class RunConfig:
    """A fine-tuning run: model, data, recipe, and what is changed of the recipe (None: nothing).

    Args:
        model: a name of `weights.WEIGHTS` or a path.
        data: a name of `data.SOURCES` or a folder.
        train_limit: at most so many training cases; likewise dev and val.
        recipe: a name of `recipes.RECIPES`.
        start: a fine-tuned decoder to begin with in place of the base's own: its folder, or the name of one that
            ships. The gain is over the base all the same.
        seed: of the order and jitter in training; the splits do not depend on it.
        skip_bad: leave bad files out, counted and named.
        tta: score the tuned model with test-time augmentation, see `Segmenter`; the base model is scored as it is.
    Raises:
        ConfigError: a box mode that is none, or a negative seed. `full_recipe` checks the recipe's values.
    """

    model: str = "mobile-sam"
    data: str = "phantom"
    train_limit: int | None = None
    dev_limit: int | None = None
    val_limit: int | None = None
    recipe: str = "best"
    epochs: int | None = None
    lr: float | None = None
    batch: int | None = None
    jitter_1024: float | None = None
    box_mode: BoxMode | None = None
    precision: str | None = None
    seed: int = 0
    skip_bad: bool = False
    tta: bool = False
    start: str | None = None

    def __post_init__(self) -> None:
        if self.box_mode not in (None, *get_args(BoxMode)):
            raise ConfigError(f"box_mode {self.box_mode!r} is unknown: use {' or '.join(get_args(BoxMode))}")
        if self.seed < 0:
            raise ConfigError(f"seed must be a whole number from 0 up, is {self.seed}")

    def full_recipe(self) -> Recipe:
        """The recipe with this run's changes in it."""
        return get_recipe(self.recipe).but(
            epochs=self.epochs,
            lr=self.lr,
            batch=self.batch,
            jitter_1024=self.jitter_1024,
            box_mode=self.box_mode,
            precision=self.precision,
        )

    @property
    def start_folder(self) -> Path | None:
        """Where the decoder lies that training begins with, if not with the base's own."""
        return find_checkpoint(self.start) if self.start else None

    def limits(self) -> dict[str, int | bool | None]:
        """The keywords of `data.load_data`."""
        names = ("train_limit", "dev_limit", "val_limit", "skip_bad")
        return {name: getattr(self, name) for name in names}

    def but(self, **changes: Any) -> RunConfig:
        """A copy with some values changed; those that are None are left as they are."""
        return replace(self, **{name: value for name, value in changes.items() if value is not None})

    def __str__(self) -> str:
        defaults = RunConfig()
        told = {"model", "data", "recipe"}
        shown = {k: v for k, v in asdict(self).items() if k in told or v != getattr(defaults, k)}
        return ", ".join(f"{name} {value}" for name, value in shown.items())


PROFILES: dict[str, RunConfig] = {
    # Any machine, no account, no data licence: what the notebooks' stored outputs come from.
    "laptop": RunConfig(recipe="quick"),
    "kvasir": RunConfig(model="sam-vit-base", data="kvasir", recipe="guide"),
    "breast": RunConfig(model="sam-vit-base", data="breast", recipe="guide"),
}


def config_from_environment(environment: Mapping[str, str] = os.environ, **overrides: Any) -> RunConfig:
    """The profile that `MEDSAM_PROFILE` names (default `laptop`), with `MEDSAM_MODEL`, `MEDSAM_DATA`, ... laid over.

    Args:
        environment: any mapping, for tests.
        overrides: laid over both.
    Raises:
        ConfigError: an unknown profile, or a value that is no number (no yes or no) where one is needed.

    >>> config_from_environment({"MEDSAM_MODEL": "lite-medsam", "MEDSAM_TRAIN_LIMIT": "8"}).train_limit
    8
    """
    name = environment.get("MEDSAM_PROFILE") or "laptop"
    if name not in PROFILES:
        raise ConfigError(f"MEDSAM_PROFILE={name!r} is unknown: use {', '.join(PROFILES)}")
    found = {}
    for field in fields(RunConfig):
        text = environment.get(f"MEDSAM_{field.name.upper()}")
        if text:
            found[field.name] = _parse(field.name, str(field.type), text)
    return PROFILES[name].but(**found).but(**overrides)


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(text)
    return number


_SWITCH = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(("0", "false", "no", "off"), False)
_READERS = {
    "int": (int, "a whole number"),
    "float": (_finite, "a finite number"),
    "bool": (lambda text: _SWITCH[text.lower()], "yes or no"),
}


def _parse(name: str, kind: str, text: str) -> Any:
    read, wanted = _READERS.get(kind.removesuffix(" | None"), (str, "text"))
    try:
        return read(text)
    except (KeyError, ValueError) as error:
        raise ConfigError(f"MEDSAM_{name.upper()}={text!r} must be {wanted}") from error
