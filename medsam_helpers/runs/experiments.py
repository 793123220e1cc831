"""The files of `experiments/`: what a recorded run is made of, read and checked before anything is trained."""

import tomllib
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from medsam_helpers.data.sources import SOURCES
from medsam_helpers.errors import ConfigError
from medsam_helpers.prompts import read_prompt
from medsam_helpers.runs.settings import DataSettings, RunConfig
from medsam_helpers.sam.checkpoints import SPECIALISTS
from medsam_helpers.settings import BoxMode, Settings

FOLDER = Path(__file__).parents[2] / "experiments"  # of the source checkout; an installed package has none
RESULTS = FOLDER.parent / "notebooks" / "results"

SourceName = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]  # it becomes a part of files' names


class Trial(RunConfig):
    """One run of an experiment."""

    # The digest of the cases stands for all that chooses them.
    LABELS: ClassVar = (*DataSettings.model_fields, "name", "fold", "folds", "train_with", "also_on", "also_with")

    name: str  # for tables
    kind: Literal["finetune", "zero-shot"] = "finetune"
    checkpoint: str | None = None  # a fine-tuned decoder that is scored beside its base, in place of training one
    folds: int | None = Field(None, ge=2, le=1000)  # each part of all cases is val once; default: the set's own split
    fold: int | None = None  # which of them this is, from 1
    train_with: dict[SourceName, PositiveInt] = Field({})  # of further sets; a tenth as many join dev
    also_on: dict[SourceName, Literal["val", "all"]] = Field({})  # further sets; all: none was trained on
    also_with: BoxMode | None = None  # scored once more on its own set, with these boxes, as "SET+BOXES"

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        of_training = ("kind", "model", "recipe", "change", "train_limit", "start")
        given = [name for name in of_training if getattr(self, name) != type(self).model_fields[name].default]
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
        from medsam_helpers.sam.tuned import base_of

        return base_of(self.checkpoint)

    @property
    def tested_on(self) -> tuple[str, ...]:
        """The names of what it is scored on, its own data set first; the others have files of these names."""
        return self.data, *self.also_on, *([f"{self.data}+{self.also_with}"] if self.also_with else [])

    def identity(self) -> dict[str, Any]:
        """What its result depends on, beside the cases."""
        return {name: value for name, value in super().identity().items() if self.is_trained or name != "recipe"}

    def __str__(self) -> str:
        shown = f"{self.name}, seed {self.seed}" if self.is_trained else self.name
        return f"{shown}, fold {self.fold} of {self.folds}" if self.fold else shown


class Experiment(Settings):
    """A file of `experiments/`."""

    name: str  # of the file
    title: str = ""
    data: str = "kvasir"  # of the runs that name none
    score: Literal["dev", "val"] = "val"  # val is scored once a run; a search scores dev, and never reads val
    prompts: tuple[str, ...] = Field(("exact", "j20", "j50"), min_length=1)
    dev_jitter_1024: float | None = Field(None, ge=0)  # at which every trial is chosen and judged; default: its own
    box_mode: BoxMode | None = None  # with which every trial is trained and judged; default: its recipe's
    trials: tuple[Trial, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _can_be_answered(self) -> Self:
        asked = {name: read_prompt(name) for name in self.prompts}
        clicks = [name for name, prompt in asked.items() if prompt.centre or prompt.clicks]
        unets = [trial.model for trial in self.trials if trial.model in SPECIALISTS]
        if clicks and unets:
            raise ConfigError(f"prompts: {clicks[0]} asks with a click, which {unets[0]} does not take")
        return self

    @property
    def sources(self) -> list[str]:
        """The names of all data sets that its runs use, its own first."""
        used = [name for trial in self.trials for name in (trial.data, *trial.train_with, *trial.also_on)]
        return list(dict.fromkeys([self.data, *used]))

    def limits(self, trial: Trial) -> dict[str, Any]:
        """How many cases of each split a trial reads; none of those that it has no use for."""
        used = {self.score, "train", "dev"} if trial.is_trained or trial.fold else {self.score}
        unread = {f"{split}_limit": 0 for split in ("train", "dev", "val") if split not in used}
        return {"train_limit": trial.train_limit} | unread


def experiment_names(folder: Path = FOLDER) -> list[str]:
    """The names of the files in the folder."""
    return sorted(path.stem for path in folder.glob("*.toml"))


def read_experiment(name: str, folder: Path = FOLDER) -> Experiment:
    """The experiment of that name; `ConfigError`, with file and key, where there is none, or a value cannot be."""
    if name not in experiment_names(folder):
        there = ", ".join(experiment_names(folder)) or "none here: they lie in the source checkout"
        raise ConfigError(f"no experiment {name!r}: there are {there}")
    where = file = f"{name}.toml"
    try:
        content = tomllib.loads((folder / file).read_text(encoding="utf-8"))
        runs, defaults = content.pop("runs", []), content.pop("defaults", {})
        if not isinstance(runs, list) or not all(isinstance(table, dict) for table in (defaults, *runs)):
            raise ConfigError("write defaults as one table, and one [[runs]] for each run")
        shared = {"data": content.get("data", "kvasir"), **defaults}
        trials: list[Trial] = []
        for index, run in enumerate(runs):
            where = f"{file}: runs[{index}] ({run.get('name', 'no name')})"
            change = shared.get("change", {}) | run.get("change", {})
            trials += _trials(shared | run | ({"change": change} if change else {}), content.get("box_mode"))
        where = file
        labels = [(trial.name, trial.seed, trial.fold) for trial in trials]
        if twice := [label for label in labels if labels.count(label) > 1]:
            raise ConfigError(f"runs: {twice[0][0]!r} with seed {twice[0][1]} is there twice")
        return Experiment(**{"title": name} | content, name=name, trials=tuple(trials))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{file}: cannot be read as TOML: {error}") from error
    except (ConfigError, TypeError) as error:
        raise ConfigError(f"{where}: {error}") from error


def _trials(entry: dict[str, Any], box_mode: BoxMode | None) -> Iterator[Trial]:
    """One trial for each training size, seed and fold of an entry."""
    limit = entry.pop("train_limit", None)
    several = isinstance(limit, list)
    for size, seed in product(limit if several else [limit], entry.pop("seeds", [0])):
        named = {"name": f"{entry.get('name')} {size}"} if several else {}
        trial = Trial(**entry | named | {"train_limit": size, "seed": seed})
        trial = trial.but(box_mode=box_mode) if trial.is_trained else trial
        for fold in range(1, trial.folds + 1) if trial.folds else [None]:
            yield trial.but(fold=fold)


def sources_of(experiment: Experiment, given: Sequence[str]) -> dict[str, str]:
    """Where each data set of an experiment comes from: by its name from the hub, unless a place is given.

    `given` is "NAME=FOLDER", or "FOLDER" for the experiment's own. `ConfigError` for a name that it does not use, or a
    data set that has to be given and is not.
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
