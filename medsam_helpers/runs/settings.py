"""`RunConfig`: what a run is made of, and the profiles that fill it in."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, Field, model_validator

from medsam_helpers.data.loading import places_of
from medsam_helpers.data.sources import SOURCES, Selection
from medsam_helpers.errors import CheckpointError, ConfigError
from medsam_helpers.settings import Settings
from medsam_helpers.training.recipes import Recipe, get_recipe


class DataSettings(Selection):
    """The data of a run, and how much of it."""

    REPEATED: ClassVar[dict[str, str | tuple[str, ...]]] = {"data": "SOURCE"}

    data: Annotated[str, BeforeValidator(lambda data: ",".join(data) if isinstance(data, list) else data)] = "phantom"
    """A folder with images/ and masks/, or phantom, phantom-ultrasound, kvasir, breast; several are one data set."""

    def selection(self) -> dict[str, Any]:
        """The keywords of `load_data`."""
        return {name: getattr(self, name) for name in Selection.model_fields}


class RunConfig(DataSettings):
    """A fine-tuning run: model, data, recipe, and what is changed of the recipe.

    A setting of the recipe may stand beside the others, `RunConfig(epochs=2)`: it goes into `change`.
    """

    model: str = "mobile-sam"
    """A name of `medsam weights --list`, or a path."""
    recipe: str = "best"
    """quick, best, guide, sam, medsam, last-stage, clicks, automatic, lora, whole-encoder, unet or unet-pretrained."""
    change: dict[str, Any] = Field({})
    """Settings of the recipe that are changed."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Of the order and the jitter in training; the splits do not depend on it."""
    tta: bool = False
    """Score the tuned model with test-time augmentation, see `Segmenter`; the base model is scored without."""
    balanced: bool = False
    """Of several data sets, show cases of the smaller ones more than once an epoch, as many as of the largest."""
    start: str | None = None
    """A fine-tuned decoder to begin with: a folder that finetune wrote, or the name of a released one."""

    @model_validator(mode="before")
    @classmethod
    def _into_change(cls, values: dict[str, Any]) -> dict[str, Any]:
        names = Recipe.model_fields.keys() - Recipe.LABELS
        own = {name: value for name, value in values.items() if name not in names}
        change = {name: value for name, value in values.items() if name in names and value is not None}
        return own | {"change": own.get("change", {}) | change} if change else own

    @model_validator(mode="after")
    def _can_be(self) -> Self:
        self.full_recipe()
        return self

    def full_recipe(self) -> Recipe:
        """The recipe with this run's changes in it."""
        return get_recipe(self.recipe).but(**self.change)

    def identity(self) -> dict[str, Any]:
        """What differs from the defaults; the recipe by its values, not by its name."""
        own = {name: value for name, value in super().identity().items() if name not in ("recipe", "change")}
        return own | {"recipe": self.full_recipe().identity()}

    @staticmethod
    def plain(value: Any) -> Any:
        """A value as JSON holds it, the recipe's among them."""
        return {name: Recipe.plain(each) for name, each in value.items()} if isinstance(value, dict) else value

    @property
    def start_folder(self) -> Path | None:
        """Where the decoder lies that training begins with, if not with the base's own."""
        from medsam_helpers.files import find_checkpoint

        return find_checkpoint(self.start) if self.start else None

    def config(self) -> "RunConfig":
        """These settings alone, without those that a subclass adds."""
        return RunConfig(**{name: getattr(self, name) for name in RunConfig.model_fields})

    def __str__(self) -> str:
        told = {name: getattr(self, name) for name in ("model", "data", "recipe")}
        changed = {name: value for name, value in super().identity().items() if name not in (*told, "change")}
        shown = (told | changed | self.change).items()
        return ", ".join(f"{name} {getattr(value, '__name__', value)}" for name, value in shown)


PROFILES: dict[str, RunConfig] = {
    # Any machine, no account, no data licence: what the notebooks' stored outputs come from.
    "laptop": RunConfig(recipe="quick"),
    "kvasir": RunConfig(model="sam-vit-base", data="kvasir", recipe="guide"),
    "breast": RunConfig(model="sam-vit-base", data="breast", recipe="guide"),
}


def config_from_environment(environment: Mapping[str, str] = os.environ, **overrides: Any) -> RunConfig:
    """The profile that `MEDSAM_PROFILE` names (default `laptop`), with `MEDSAM_MODEL`, `MEDSAM_EPOCHS`, ... laid over.

    The `overrides` are laid over both. `ConfigError` where there is no such profile, or a value cannot be.

    >>> config_from_environment({"MEDSAM_MODEL": "lite-medsam", "MEDSAM_TRAIN_LIMIT": "8"}).train_limit
    8
    """
    name = environment.get("MEDSAM_PROFILE") or "laptop"
    if name not in PROFILES:
        raise ConfigError(f"MEDSAM_PROFILE={name!r} is unknown: use {', '.join(PROFILES)}")
    found = in_environment(Recipe, environment) | in_environment(RunConfig, environment)
    try:
        profile = PROFILES[name].but(**{name: found[name] for name in found if name not in Recipe.LABELS})
    except ConfigError as error:
        raise ConfigError(f"{error} (MEDSAM_{str(error).split()[0].upper()} in the environment)") from None
    return profile.but(**overrides)


def in_environment(settings: type[Settings], environment: Mapping[str, str]) -> dict[str, str]:
    """The settings that `MEDSAM_NAME` variables give, as text; empty ones are none."""
    named = {name: environment.get(f"MEDSAM_{name.upper()}") for name in settings.model_fields}
    return {name: text for name, text in named.items() if text}


def check_names(model: str | None = None, checkpoint: Path | None = None, data: str | None = None) -> None:
    """Find a mistyped model, checkpoint or data source before libraries take seconds to load.

    `ConfigError` where there is no model or data source of that name or path, `CheckpointError` for a checkpoint.
    """
    from medsam_helpers.sam.checkpoints import NAMES

    if model is not None and model not in NAMES and not Path(model).expanduser().exists():
        raise ConfigError(f"no model {model!r}: use {', '.join(NAMES)}, or a path that exists")
    if checkpoint is not None and not (checkpoint / "run_card.json").is_file():
        lacks = "holds no run_card.json" if checkpoint.is_dir() else "is no folder that exists"
        raise CheckpointError(f"checkpoint {checkpoint} {lacks}: pass one that `medsam finetune --output` wrote")
    for place in [] if data is None else places_of(data):
        if place not in SOURCES and not Path(place).expanduser().is_dir():
            raise ConfigError(f"no data source {place!r}: use {', '.join(SOURCES)}, or a folder that exists")
