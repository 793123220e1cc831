"""The files of `experiments/`: what a recorded run is made of, read and checked before anything is trained."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from medsam_helpers.errors import ConfigError
from medsam_helpers.evaluation import jitter_of
from medsam_helpers.recipes import Recipe, get_recipe

FOLDER = Path(__file__).parents[1] / "experiments"
"""Of the source checkout; an installed package has none."""
_TOP = {"title": str, "data": str, "score": str, "prompts": list, "dev_jitter_1024": (int, float), "dev_limit": int}
_TOP |= {"val_limit": int, "defaults": dict, "runs": list}
_RUN = {"name": str, "kind": str, "model": str, "recipe": str, "train_limit": (int, list), "seeds": list}
_RUN |= {"change": dict}
_CHANGES = tuple(field.name for field in fields(Recipe) if field.name not in ("name", "source"))


@dataclass(frozen=True)
class Trial:
    """One run of an experiment; without a recipe the base model is scored as it is."""

    name: str
    model: str
    recipe: Recipe | None
    train_limit: int | None
    seed: int
    changes: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.name}, seed {self.seed}" if self.recipe else self.name


@dataclass(frozen=True)
class Experiment:
    """A file of `experiments/`.

    `score` names the split that is scored: "val" once a run, or "dev" for a search, which never reads val. With a
    `dev_jitter_1024` every trial is chosen and judged at that jitter, whatever its own.
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
    if score not in ("dev", "val"):
        raise ConfigError(f"{path.name}: score {score!r} is unknown: use dev or val")
    defaults = content.get("defaults", {})
    _check(path, "defaults.", defaults, _RUN)
    if not content.get("runs"):
        raise ConfigError(f"{path.name}: runs is empty: write one [[runs]] for each")
    trials = []
    for index, run in enumerate(content["runs"]):
        _check(path, f"runs[{index}].", run, _RUN)
        merged = {**defaults, **run, "change": {**defaults.get("change", {}), **run.get("change", {})}}
        try:
            trials += _trials(merged)
        except (ConfigError, TypeError, KeyError) as error:
            raise ConfigError(f"{path.name}: runs[{index}] ({run.get('name', 'no name')}): {error}") from error
    try:
        [jitter_of(prompt) for prompt in prompts]
    except (ConfigError, TypeError) as error:
        raise ConfigError(f"{path.name}: prompts: {error}") from error
    labels = [(trial.name, trial.seed) for trial in trials]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise ConfigError(f"{path.name}: runs: {twice[0][0]!r} with seed {twice[0][1]} is there twice")
    optional = {key: content.get(key) for key in ("dev_jitter_1024", "dev_limit", "val_limit")}
    title, data = content.get("title", name), content.get("data", "kvasir")
    return Experiment(name, title, data, score, prompts, trials=tuple(trials), **optional)


def _check(path: Path, where: str, table: Any, known: Mapping[str, Any]) -> None:
    if not isinstance(table, dict):
        raise ConfigError(f"{path.name}: {where.rstrip('.')} must be a table")
    for key, value in table.items():
        if key not in known:
            raise ConfigError(f"{path.name}: {where}{key} is unknown: use {', '.join(known)}")
        if not isinstance(value, known[key]) or isinstance(value, bool):
            raise ConfigError(f"{path.name}: {where}{key} has the wrong type: {value!r}")


def _trials(run: Mapping[str, Any]) -> Iterator[Trial]:
    """One trial for each training size and seed of an entry."""
    if "name" not in run:
        raise ConfigError("name is missing")
    model, kind, changes = run.get("model", "mobile-sam"), run.get("kind", "finetune"), run["change"]
    if kind == "zero-shot":
        yield Trial(run["name"], model, None, 0, 0, {})
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
            yield Trial(name, model, recipe, limit, seed, changes)
