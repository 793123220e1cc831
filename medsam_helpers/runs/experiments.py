"""The files of `experiments/`: what a recorded run is made of, read and checked before anything is trained."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from medsam_helpers.data.sources import SOURCES
from medsam_helpers.errors import ConfigError
from medsam_helpers.files import find_checkpoint
from medsam_helpers.prompts import BoxMode, jitter_of
from medsam_helpers.runs.settings import DataSettings, RunConfig
from medsam_helpers.settings import Settings
from medsam_helpers.training.recipes import Recipe

FOLDER = Path(__file__).parents[2] / "experiments"
"""Of the source checkout; an installed package has none."""
RESULTS = FOLDER.parent / "notebooks" / "results"


class Trial(RunConfig):
    """One run of an experiment."""

    # The digest of the cases stands for all that chooses them.
    LABELS: ClassVar[tuple[str, ...]] = (*DataSettings.model_fields, "name", "fold", "folds", "train_with", "also_on")

    name: str
    """For tables."""
    kind: Literal["finetune", "zero-shot"] = "finetune"
    """Whether anything is trained."""
    checkpoint: str | None = None
    """A fine-tuned decoder that is scored beside its base, in place of training one."""
    folds: int | None = Field(None, ge=2, le=1000)
    """Into how many parts all cases are divided, each of them val once. Default: the data set's own split."""
    fold: int | None = None
    """Which of them this is, from 1."""
    train_with: dict[str, PositiveInt] = Field({})
    """Further data sets to train with, and how many cases of each; a tenth as many join dev."""
    also_on: dict[str, Literal["val", "all"]] = Field({})
    """Further data sets to score on: their val, or all of them where none was trained on."""

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        fields = type(self).model_fields
        of_training = ("kind", "model", "recipe", "change", "train_limit", "start")
        given = [name for name in of_training if getattr(self, name) != fields[name].default]
        if self.checkpoint and given:
            raise ConfigError(f"{given[0]} and checkpoint cannot go together: it is trained already")
        if self.kind == "zero-shot" and self.start:
            raise ConfigError("start is where training begins: leave it out where nothing is trained")
        if self.folds and self.train_limit is not None:
            raise ConfigError("train_limit and folds cannot go together")
        if self.data in self.also_on:
            raise ConfigError(f"also_on.{self.data}: this is the run's own data set, on which it is scored anyway")
        return self

    @property
    def is_trained(self) -> bool:
        """Whether this run trains."""
        return self.kind == "finetune" and not self.checkpoint

    @property
    def base(self) -> str:
        """The model as it is: what the rows of "zero-shot" are of."""
        if not self.checkpoint:
            return self.model
        from medsam_helpers.sam.tuned import read_card

        return str(read_card(find_checkpoint(self.checkpoint))["base"])

    def identity(self) -> dict[str, Any]:
        """What its result depends on, beside the cases."""
        return {name: value for name, value in super().identity().items() if self.is_trained or name != "recipe"}

    def __str__(self) -> str:
        shown = f"{self.name}, seed {self.seed}" if self.is_trained else self.name
        return f"{shown}, fold {self.fold} of {self.folds}" if self.fold else shown


class Experiment(Settings):
    """A file of `experiments/`."""

    name: str
    """Of the file."""
    title: str = ""
    """What it answers."""
    data: str = "kvasir"
    """The data set of the runs that name none."""
    score: Literal["dev", "val"] = "val"
    """The split that is scored: val once a run, or dev for a search, which never reads val."""
    prompts: tuple[str, ...] = ("exact", "j20", "j50")
    """That every model is scored with."""
    dev_jitter_1024: float | None = Field(None, ge=0)
    """At which every trial is chosen and judged, whatever its own jitter; default: its own."""
    dev_limit: int | None = Field(None, ge=0)
    """At most so many dev cases."""
    val_limit: int | None = Field(None, ge=0)
    """At most so many val cases."""
    box_mode: BoxMode | None = None
    """Of the boxes that every trial is trained and judged with; default: its recipe's."""
    trials: tuple[Trial, ...] = Field(min_length=1)
    """Its runs."""

    @field_validator("prompts")
    @classmethod
    def _are_prompts(cls, prompts: tuple[str, ...]) -> tuple[str, ...]:
        for prompt in prompts:
            jitter_of(prompt)
        return prompts

    @property
    def sources(self) -> list[str]:
        """The names of all data sets that its runs use, its own first."""
        used = [name for trial in self.trials for name in (trial.data, *trial.train_with, *trial.also_on)]
        return list(dict.fromkeys([self.data, *used]))

    def limits(self, trial: Trial) -> dict[str, int | None]:
        """How many cases of each split a trial reads; none of those that it has no use for."""
        limits = {"train_limit": trial.train_limit, "dev_limit": self.dev_limit, "val_limit": self.val_limit}
        if not trial.is_trained and not trial.fold:
            limits |= {"train_limit": 0} | ({"dev_limit": 0} if self.score == "val" else {})
        return limits | ({"val_limit": 0} if self.score == "dev" else {})


class _Grid(Settings):
    """What makes several runs of one entry."""

    train_limit: int | tuple[int, ...] | None = None
    seeds: tuple[int, ...] = (0,)


def experiment_names(folder: Path = FOLDER) -> list[str]:
    """The names of the files in the folder."""
    return sorted(path.stem for path in folder.glob("*.toml"))


def read_experiment(name: str, folder: Path = FOLDER) -> Experiment:
    """The experiment of that name.

    Raises:
        ConfigError: no such file, no TOML, or a value that cannot be: names file and key.
    """
    path = folder / f"{name}.toml"
    if name not in experiment_names(folder):
        there = ", ".join(experiment_names(folder)) or "none here: they lie in the source checkout"
        raise ConfigError(f"no experiment {name!r}: there are {there}")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path.name}: cannot be read as TOML: {error}") from error
    runs, defaults, where = content.pop("runs", []), content.pop("defaults", {}), path.name
    try:
        if not isinstance(runs, list) or not all(isinstance(table, dict) for table in (defaults, *runs)):
            raise ConfigError("write defaults as one table, and one [[runs]] for each run")
        shared = {"data": content.get("data", "kvasir"), **defaults}
        trials: list[Trial] = []
        for index, run in enumerate(runs):
            where = f"{path.name}: runs[{index}] ({run.get('name', 'no name')})"
            change = shared.get("change", {}) | run.get("change", {})
            trials += _trials(shared | run | ({"change": change} if change else {}), content.get("box_mode"))
        where = path.name
        labels = [(trial.name, trial.seed, trial.fold) for trial in trials]
        if twice := [label for label in labels if labels.count(label) > 1]:
            raise ConfigError(f"runs: {twice[0][0]!r} with seed {twice[0][1]} is there twice")
        return Experiment(**{"title": name} | content, name=name, trials=tuple(trials))
    except (ConfigError, TypeError) as error:
        raise ConfigError(f"{where}: {error}") from error


def _trials(entry: dict[str, Any], box_mode: BoxMode | None) -> Iterator[Trial]:
    """One trial for each training size, seed and fold of an entry."""
    grid = _Grid(**{name: entry.pop(name) for name in _Grid.model_fields if name in entry})
    known = [name for name in Recipe.model_fields if name not in Recipe.LABELS]
    if unknown := set(entry.get("change", {})) - set(known):
        raise ConfigError(f"change.{sorted(unknown)[0]} is unknown: use {', '.join(known)}")
    for limit in grid.train_limit if (several := isinstance(grid.train_limit, tuple)) else [grid.train_limit]:
        limited = {} if limit is None else {"train_limit": limit}
        named = {"name": f"{entry.get('name')} {limit}"} if several else {}
        for seed in grid.seeds:
            trial = Trial(**entry | limited | named | {"seed": seed})
            trial = trial.but(box_mode=box_mode) if trial.is_trained else trial
            for fold in range(1, trial.folds + 1) if trial.folds else [None]:
                yield trial.but(fold=fold)


def sources_of(experiment: Experiment, given: Sequence[str]) -> dict[str, str]:
    """Where each data set of an experiment comes from: by its name from the hub, unless a place is given.

    Args:
        experiment: names the data sets.
        given: "NAME=FOLDER", or "FOLDER" for the experiment's own.
    Raises:
        ConfigError: a name that the experiment does not use, or a data set that has to be given and is not.
    """
    places = {name: name for name in experiment.sources}
    for text in given:
        name, sign, place = text.partition("=")
        if not sign:
            name, place = experiment.data, text
        if name not in places:
            raise ConfigError(f"--data {text}: {experiment.name} uses {', '.join(places)}")
        places[name] = place
    for name, place in places.items():
        if place == name and name not in SOURCES and not Path(name).is_dir():
            raise ConfigError(f"data set {name!r} cannot be fetched: pass its folder with --data {name}=FOLDER")
    return places
