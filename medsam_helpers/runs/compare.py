"""Several run folders side by side, where they were scored alike: on the same images, with the same boxes."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from medsam_helpers.errors import ConfigError, DataError, check_known, some
from medsam_helpers.evaluation.tables import paired_gain, pooled_dice, summarise
from medsam_helpers.runs.findings import model_in_question
from medsam_helpers.runs.recorded import read_table


def read_runs(folders: Sequence[str | Path], model: str | None = None, prompt: str | None = None) -> pd.DataFrame:
    """Table of the scores of several runs on the same images, prompts and boxes: `model` is the run's name.

    Args:
        folders: of `medsam finetune` or `medsam evaluate`, with a `metrics.csv` each; runs are named after them.
        model: whose scores are taken of each; default: see `model_in_question`.
        prompt: only this one; default: all, which must be the same in each.
    Raises:
        ConfigError: fewer than two folders, one given twice, or no such model or prompt in one.
        DataError: no scores in a folder, or other images, prompts or box modes; it says which and how many.
    """
    paths = [Path(folder).expanduser() for folder in folders]
    if len(paths) < 2 or len({path.resolve() for path in paths}) < len(paths):
        raise ConfigError("a comparison needs two runs or more, each given once")
    short = [path.resolve().name for path in paths]
    names = short if len(set(short)) == len(short) else [str(path) for path in paths]
    tables, modes = list[pd.DataFrame](), list[str | None]()
    for path, name in zip(paths, names, strict=True):
        table = read_table(path / "metrics.csv")
        if table.duplicated(["case", "model", "prompt", "seed"]).any():
            raise DataError(f"{path}: holds several runs of an experiment: name the folder of a single run")
        chosen = model or model_in_question(table)
        check_known(f"{path}: model", chosen, table["model"])
        if prompt:
            check_known(f"{path}: prompt", prompt, table["prompt"])
            table = table[table["prompt"] == prompt]
        tables.append(table[table["model"] == chosen].assign(model=name))
        card = _card(path)
        modes.append(card.get("box_mode") or card.get("recipe", {}).get("box_mode"))
        if differ := list(_differences(tables[0], tables[-1], modes[0], modes[-1])):
            raise DataError(f"{names[0]} and {name} cannot be compared: {'; '.join(differ)}")
    return pd.concat(tables, ignore_index=True)


def _differences(first: pd.DataFrame, other: pd.DataFrame, mode: str | None, other_mode: str | None) -> Iterator[str]:
    """In words what two runs were not scored alike on; of each the scores and the box mode."""
    prompts, others = set(first["prompt"]), set(other["prompt"])
    if prompts != others:
        shared = ", ".join(sorted(prompts & others))
        both = f"; choose one with --prompt: both have {shared}" if shared else ""
        yield f"prompts {', '.join(sorted(prompts))} against {', '.join(sorted(others))}{both}"
    if set(first["seed"]) != set(other["seed"]):
        yield "the boxes were jittered with other seeds"
    areas, other_areas = (table.groupby("case")["area_true"].first() for table in (first, other))
    if alone := sorted(set(areas.index) ^ set(other_areas.index)):
        yield f"{len(alone)} images were scored for one of the two only ({some(alone)})"
    in_both = areas.index.intersection(other_areas.index)
    if changed := list(in_both[areas[in_both] != other_areas[in_both]]):
        yield f"{len(changed)} images have another reference mask ({some(changed)})"
    if mode and other_mode and mode != other_mode:
        yield f"box mode {mode} against {other_mode}"


def differing_settings(first: Path, other: Path) -> list[str]:
    """In words what two runs were trained otherwise on, as far as their cards tell: "lr 0.0002 against 0.001"."""
    one, two = _settings(first), _settings(other)
    return [f"{name} {one[name]} against {two[name]}" for name in one if name in two and one[name] != two[name]]


def _settings(folder: Path) -> dict[str, Any]:
    card = _card(folder)
    told: dict[str, Any] = {key: card[key] for key in ("model", "split", "precision") if key in card}
    told |= {f"{split} images": count for split, count in card.get("sizes", {}).items()}
    # The recipe's name and what was changed of it are in its values; a limit is in the number of images.
    for values in (card.get("config", {}), card.get("recipe", {})):
        told |= {key: value for key, value in values.items() if key not in ("recipe", "name", "source", "change")}
    return {key: value for key, value in told.items() if not key.endswith("_limit")}


def _card(folder: Path) -> dict[str, Any]:
    """The run card; empty where there is none."""
    try:
        card = json.loads((folder / "run_card.json").read_text(encoding="utf-8"))
        return card if isinstance(card, dict) else {}
    except (OSError, ValueError):
        return {}


def compare_runs(table: pd.DataFrame) -> pd.DataFrame:
    """Of a table of `read_runs` each run's mean Dice, and its paired difference to the first one on the same images.

    Returns:
        A row a prompt and run: `run, prompt, n, dice, dice_low, dice_high, dice_pooled` (see `pooled_dice`),
        `difference, low, high` with Student's t interval; the first run's own difference, and intervals of fewer than
        five images, are NaN.
    """
    columns = ["run", "prompt", "n", "dice", "dice_low", "dice_high"]
    means = summarise(table).rename(columns={"model": "run"})[columns].sort_values("prompt", kind="stable")
    first, rows = table["model"].iloc[0], []
    for row in means.to_dict("records"):
        run, prompt = row["run"], row["prompt"]
        pooled = pooled_dice(table[(table["model"] == run) & (table["prompt"] == prompt)])
        gain = {} if run == first else paired_gain(table, prompt, run, first)._asdict()
        rows.append(row | {"dice_pooled": pooled} | gain)
    return pd.DataFrame(rows).rename(columns={"mean": "difference"})
