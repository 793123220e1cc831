"""The record of an experiment: what its runs left, as three tables and a run card that are committed."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from medsam_helpers.errors import DataError
from medsam_helpers.evaluation.predictors import WITH_TTA
from medsam_helpers.files import atomic_write
from medsam_helpers.runs.card import write_run_card
from medsam_helpers.runs.experiments import Experiment, Trial
from medsam_helpers.runs.recorded import read_table, recorded_gain
from medsam_helpers.sam.checkpoints import SPECIALISTS
from medsam_helpers.sam.tuned import CARD_FILE
from medsam_helpers.training.recipes import Recipe

_TABLES = ("metrics.csv", "history.csv", "summary.csv")
_KEPT = ("commit", "date", "data_digest", "seconds", "machine", "precision", "recipe", "sizes", "best_epoch")


@dataclass(frozen=True)
class RunRecord:
    """What a record holds of one run: its rows of each table, by the table's file, and its entry in the run card."""

    tables: dict[str, pd.DataFrame]
    entry: dict[str, Any]

    def serves(self, trial: Trial, data_digest: str) -> bool:
        """Whether it is this trial: name, seed, fold, start, recipe, pixels, and all of the data sets scored on."""
        start, entry = trial.start_folder, self.entry
        asked = [trial.name, trial.seed, trial.fold, data_digest, start and start.name]
        held = [entry["run"], entry["seed"], entry["fold"], entry["data_digest"], entry.get("start", {}).get("name")]
        recipe = Recipe(**entry["recipe"]).identity() if entry["recipe"] else None
        same = recipe == (trial.full_recipe().identity() if trial.is_trained else None)
        return same and held == asked and set(self.tables["summary.csv"]["tested_on"]) == set(trial.tested_on)


def record_of_run(trial: Trial, folder: Path) -> RunRecord:
    """The record of a run that lies finished in its folder."""
    card = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
    names = {"run": trial.name, "seed": trial.seed, "fold": trial.fold}
    history = pd.DataFrame(columns=["run", "seed", "fold"])
    if trial.is_trained:
        history = pd.read_csv(folder / "history.csv").assign(**names)
    base = Path(trial.base).name + WITH_TTA * (trial.tta and not trial.is_trained and not trial.checkpoint)
    tables, rows = [], []
    for tested_on in trial.tested_on:
        file = "metrics.csv" if tested_on == trial.data else f"metrics-{tested_on}.csv"
        table = read_table(folder / file)
        table = table[table["model"] != f"zero-shot{WITH_TTA}"]  # a run of its own in a record
        whence = {"run": trial.name, "train_seed": trial.seed, "fold": trial.fold, "tested_on": tested_on}
        tables.append(table.assign(**whence, base=base))
        rows.append(names | {"tested_on": tested_on} | _summary_row(trial, card, table, history))
    entry = {**names, "folder": folder.name, **{key: card.get(key) for key in _KEPT}}
    entry |= {"start": card["start"]} if card.get("start") else {}
    return RunRecord(dict(zip(_TABLES, (pd.concat(tables), history, pd.DataFrame(rows)), strict=True)), entry)


def read_record(output: Path) -> list[RunRecord]:
    """The runs of a record, none where there is none; `DataError` where one of its files is missing or damaged."""
    if not (output / CARD_FILE).exists():
        return []
    try:
        entries = json.loads((output / CARD_FILE).read_text(encoding="utf-8"))["runs"]
        tables = {file: pd.read_csv(output / file, dtype={"fold": "Int64"}) for file in _TABLES}
        return [RunRecord({file: _rows_of(tables[file], entry) for file in _TABLES}, entry) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{output}: no whole record ({error!r}): mend it, or leave --missing out") from error


def _rows_of(table: pd.DataFrame, entry: dict[str, Any]) -> pd.DataFrame:
    """The rows of a run; in the scores, "seed" is that of the prompts."""
    seed = table["train_seed" if "train_seed" in table else "seed"]
    fold = table["fold"].isna() if entry["fold"] is None else table["fold"] == entry["fold"]
    return table[(table["run"] == entry["run"]) & (seed == entry["seed"]) & fold]


def write_record(
    experiment: Experiment, runs: Sequence[RunRecord], output: Path, command: str, commit: str
) -> pd.DataFrame:
    """The summary, a row for each run and data set; the three tables and the run card are in `output` then.

    The scores of the fills and of each base model, which are the same in every run, stand once for each data set.
    `runs` are those there are so far, in the experiment's order; `commit` is the code's when it began.
    """
    tables = {}
    for file in _TABLES:
        parts = [run.tables[file] for run in runs]
        tables[file] = pd.concat([part for part in parts if len(part)] or parts[:1])
    for file, table in (tables | {"metrics.csv": _each_once(tables["metrics.csv"])}).items():
        with atomic_write(output / file) as temporary:
            table.to_csv(temporary, index=False, float_format="%.6f", lineterminator="\n")
    entries = [run.entry for run in runs]
    largest = max(entries, key=lambda entry: (entry["sizes"] or {}).get("train", 0))
    card: Any = {"data_digest": largest["data_digest"], "seconds": sum(entry["seconds"] for entry in entries)}
    card |= {"experiment": experiment.name, "title": experiment.title, "data": experiment.data}
    card |= {"split": experiment.score, "prompts": list(experiment.prompts)}
    card |= {"box_mode": experiment.box_mode} if experiment.box_mode else {}
    card |= {"complete": len(runs) == len(experiment.trials), "runs": entries}
    write_run_card(output / CARD_FILE, command=command, commit=commit, **card)
    return tables["summary.csv"].reset_index(drop=True)


def _each_once(table: pd.DataFrame) -> pd.DataFrame:
    """Without what an earlier run scored as well: fills know no model, and untrained ones no training."""
    own = table["model"] == "tuned"
    base = table["base"].where(table["model"] == "zero-shot", "")
    again = table.assign(base=base).duplicated(["model", "base", "prompt", "case", "tested_on"])
    return table[own | ~again]


def _summary_row(trial: Trial, card: dict[str, Any], table: pd.DataFrame, history: pd.DataFrame) -> dict[str, Any]:
    metrics, start = card["metrics"], {"start": trial.start} if trial.start else {}
    row = {
        "model": Path(trial.base).name,
        "recipe": trial.recipe if trial.is_trained else trial.checkpoint or "zero-shot",
        "changes": "; ".join(f"{key} {value}" for key, value in (trial.change | start).items()),
        "n_train": metrics.get("n_train", 0),
        "n_scored": table["case"].nunique(),
        "best_epoch": card.get("best_epoch"),
        "dev_dice": history["dev_dice"].max() if len(history) else None,
    }
    for (model, prompt), dice in table.groupby(["model", "prompt"], sort=False)["dice"].mean().items():
        row[f"{model}_{prompt}"] = dice
    # What a specialist gains over its own random weights is no news.
    compares = (trial.is_trained or trial.checkpoint) and trial.model not in SPECIALISTS
    gain = recorded_gain(table, metrics["prompt"]) if compares else (None, None, None)
    row |= {"gain_prompt": metrics.get("prompt"), **dict(zip(("gain", "gain_low", "gain_high"), gain, strict=True))}
    row |= {"seconds_encode": metrics["seconds_encode"], "seconds_train": metrics.get("seconds_train", 0)}
    return row | {"seconds": card["seconds"], "own_memory_mb": metrics.get("own_memory_mb")}
