"""The files of `experiments/`: what a recorded run is made of, read and checked before anything is trained."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_args

from medsam_helpers.data.sources import SOURCES
from medsam_helpers.errors import ConfigError
from medsam_helpers.evaluation.compare import WITH_TTA
from medsam_helpers.prompts import jitter_of
from medsam_helpers.files import find_checkpoint
from medsam_helpers.sam.tuned import read_card
from medsam_helpers.prompts import BoxMode
from medsam_helpers.training.recipes import Recipe, get_recipe

FOLDER = Path(__file__).parents[2] / "experiments"
"""Of the source checkout; an installed package has none."""
_TOP = {"title": str, "data": str, "score": str, "prompts": list, "dev_jitter_1024": (int, float), "dev_limit": int}
_TOP |= {"val_limit": int, "box_mode": str, "defaults": dict, "runs": list}
_RUN = {"name": str, "kind": str, "model": str, "recipe": str, "train_limit": (int, list), "seeds": list}
_RUN |= {"change": dict, "data": str, "folds": int, "train_with": dict, "also_on": dict, "checkpoint": str, "tta": bool}
_RUN |= {"start": str}
_PARTS = ("val", "all")
_CHANGES = tuple(field.name for field in fields(Recipe) if field.name not in ("name", "source"))


@dataclass(frozen=True)
class Trial:
    """One run of an experiment.

    Args:
        name: for tables.
        model: see `load_sam`.
        recipe: None: nothing is trained.
        train_limit: of the training cases.
        seed: of training.
        changes: of the recipe, as written.
        data: name of the data set.
        fold: (which, of how many), from 1: see `data.folds.make_folds`. None: the data set's own split.
        train_with: further data sets to train with, and how many cases of each; a tenth as many join dev.
        also_on: further data sets to score on, and which cases: "val", or "all" where none was trained on.
        checkpoint: a fine-tuned decoder that is scored beside its base, in place of training one.
        tta: score with test-time augmentation, see `Segmenter`; a base beside a tuned model is scored without.
        start: a fine-tuned decoder that training begins with, in place of the base's own.
    """

    name: str
    model: str
    recipe: Recipe | None
    train_limit: int | None
    seed: int
    changes: Mapping[str, Any]
    data: str
    fold: tuple[int, int] | None = None
    train_with: Mapping[str, int] = field(default_factory=dict)
    also_on: Mapping[str, str] = field(default_factory=dict)
    checkpoint: str | None = None
    tta: bool = False
    start: str | None = None

    @property
    def base(self) -> str:
        """What the rows of "zero-shot" are of."""
        return f"{self.model}{WITH_TTA}" if self.tta and not self.is_tuned else self.model

    @property
    def is_tuned(self) -> bool:
        """Whether there is a tuned model beside the base."""
        return self.recipe is not None or self.checkpoint is not None

    def __str__(self) -> str:
        shown = f"{self.name}, seed {self.seed}" if self.recipe else self.name
        return f"{shown}, fold {self.fold[0]} of {self.fold[1]}" if self.fold else shown


@dataclass(frozen=True)
class Experiment:
    """A file of `experiments/`.

    `score` names the split that is scored: "val" once a run, or "dev" for a search, which never reads val. With a
    `dev_jitter_1024` every trial is chosen and judged at that jitter, whatever its own; with a `box_mode` every one is
    trained and judged with boxes of that kind.
    """

    name: str
    title: str
    data: str
    score: str
    prompts: tuple[str, ...]
    dev_jitter_1024: float | None
    dev_limit: int | None
    val_limit: int | None
    trials: tuple[Trial, ...]
    box_mode: BoxMode | None = None

    @property
    def sources(self) -> list[str]:
        """The names of all data sets that its runs use, its own first."""
        used = [name for trial in self.trials for name in (trial.data, *trial.train_with, *trial.also_on)]
        return list(dict.fromkeys([self.data, *used]))


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
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path.name}: cannot be read as TOML: {error}") from error
    _check(path, "", content, _TOP)
    score, prompts = content.get("score", "val"), tuple(content.get("prompts", ("exact", "j20", "j50")))
    box_mode = content.get("box_mode")
    for key, value, known in (("score", score, ("dev", "val")), ("box_mode", box_mode, (*get_args(BoxMode), None))):
        if value not in known:
            raise ConfigError(f"{path.name}: {key} {value!r} is unknown: use {' or '.join(filter(None, known))}")
    defaults = content.get("defaults", {})
    _check(path, "defaults.", defaults, _RUN)
    if not content.get("runs"):
        raise ConfigError(f"{path.name}: runs is empty: write one [[runs]] for each")
    trials, data = [], content.get("data", "kvasir")
    for index, run in enumerate(content["runs"]):
        _check(path, f"runs[{index}].", run, _RUN)
        merged = {"data": data, **defaults, **run, "change": {**defaults.get("change", {}), **run.get("change", {})}}
        try:
            trials += _trials(merged)
        except (ConfigError, TypeError, KeyError) as error:
            raise ConfigError(f"{path.name}: runs[{index}] ({run.get('name', 'no name')}): {error}") from error
    try:
        [jitter_of(prompt) for prompt in prompts]
    except (ConfigError, TypeError) as error:
        raise ConfigError(f"{path.name}: prompts: {error}") from error
    labels = [(trial.name, trial.seed, trial.fold) for trial in trials]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise ConfigError(f"{path.name}: runs: {twice[0][0]!r} with seed {twice[0][1]} is there twice")
    optional = {key: content.get(key) for key in ("dev_jitter_1024", "dev_limit", "val_limit")}
    if box_mode:
        trials = [replace(trial, recipe=trial.recipe and trial.recipe.but(box_mode=box_mode)) for trial in trials]
    title = content.get("title", name)
    return Experiment(name, title, data, score, prompts, trials=tuple(trials), box_mode=box_mode, **optional)


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


def _check(path: Path, where: str, table: Any, known: Mapping[str, Any]) -> None:
    if not isinstance(table, dict):
        raise ConfigError(f"{path.name}: {where.rstrip('.')} must be a table")
    for key, value in table.items():
        if key not in known:
            raise ConfigError(f"{path.name}: {where}{key} is unknown: use {', '.join(known)}")
        if not isinstance(value, known[key]) or (isinstance(value, bool) and known[key] is not bool):
            raise ConfigError(f"{path.name}: {where}{key} has the wrong type: {value!r}")


def _trials(run: Mapping[str, Any]) -> Iterator[Trial]:
    """One trial for each training size, seed and fold of an entry."""
    if "name" not in run:
        raise ConfigError("name is missing")
    model, kind, changes = run.get("model", "mobile-sam"), run.get("kind", "finetune"), run["change"]
    folds, where = _folds(run), _other_data(run) | {"tta": run.get("tta", False)}
    if "checkpoint" in run:
        if given := [key for key in ("kind", "model", "recipe", "train_limit", "seeds") if key in run]:
            raise ConfigError(f"{given[0]} and checkpoint cannot go together: it is trained already")
        model = read_card(find_checkpoint(run["checkpoint"]))["base"]
        where |= {"checkpoint": run["checkpoint"]}
    if kind == "zero-shot" or "checkpoint" in run:
        if "start" in run:
            raise ConfigError("start is where training begins: leave it out where nothing is trained")
        for fold in folds:
            yield Trial(run["name"], model, None, None if fold else 0, 0, {}, fold=fold, **where)
        return
    if kind != "finetune":
        raise ConfigError(f"kind {kind!r} is unknown: use finetune or zero-shot")
    if unknown := changes.keys() - set(_CHANGES):
        raise ConfigError(f"change.{sorted(unknown)[0]} is unknown: use {', '.join(_CHANGES)}")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in changes.items()}
    recipe, limits = get_recipe(run.get("recipe", "best")).but(**values), run.get("train_limit")
    for limit in limits if isinstance(limits, list) else [limits]:
        for seed in run.get("seeds", [0]):
            if not isinstance(seed, int) or seed < 0:
                raise ConfigError(f"seeds: {seed!r} is no whole number from 0 up")
            name = f"{run['name']} {limit}" if isinstance(limits, list) else run["name"]
            for fold in folds:
                yield Trial(name, model, recipe, limit, seed, changes, fold=fold, start=run.get("start"), **where)


def _folds(run: Mapping[str, Any]) -> list[tuple[int, int] | None]:
    if "folds" not in run:
        return [None]
    if run["folds"] < 2:
        raise ConfigError(f"folds: {run['folds']} is too few: use 2 or more")
    if "train_limit" in run:
        raise ConfigError("train_limit and folds cannot go together")
    return [(number, run["folds"]) for number in range(1, run["folds"] + 1)]


def _other_data(run: Mapping[str, Any]) -> dict[str, Any]:
    """The data sets of a run."""
    train_with, also_on = run.get("train_with", {}), run.get("also_on", {})
    for data, count in train_with.items():
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ConfigError(f"train_with.{data}: {count!r} is no whole number from 1 up")
    if run["data"] in also_on:
        raise ConfigError(f"also_on.{run['data']}: this is the run's own data set, on which it is scored anyway")
    for data, part in also_on.items():
        if part not in _PARTS:
            raise ConfigError(f"also_on.{data}: {part!r} is unknown: use {' or '.join(_PARTS)}")
    return {"data": run["data"], "train_with": train_with, "also_on": also_on}
