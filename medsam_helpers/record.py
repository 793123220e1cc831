"""The record of an experiment: what its runs left in their folders, as four files that are committed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from medsam_helpers.experiments import Experiment, Trial
from medsam_helpers.files import atomic_write
from medsam_helpers.models.decoder import CARD_FILE
from medsam_helpers.runcard import write_run_card
from medsam_helpers.scores import paired_gain, read_table
from medsam_helpers.weights import SPECIALISTS


def write_record(
    experiment: Experiment, finished: Sequence[tuple[Trial, Path]], output: Path, command: str, commit: str
) -> pd.DataFrame:
    """Write `metrics.csv`, `history.csv`, `summary.csv` and `run_card.json` from what lies in the runs' folders.

    The scores of the fills and of each base model, which are the same in every run, stand once for each data set.

    Args:
        experiment: whose runs they are.
        finished: the runs so far, each with its folder.
        output: for the four files.
        command: for the run card.
        commit: of the code when the experiment began.
    Returns:
        The summary: a row for each run and data set that it was scored on.
    """
    tables, histories, rows, runs = [], [], [], []
    for trial, folder in finished:
        card = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
        names = {"run": trial.name, "seed": trial.seed, "fold": trial.fold[0] if trial.fold else None}
        history = pd.DataFrame()
        if trial.recipe:
            history = pd.read_csv(folder / "history.csv").assign(**names)
            histories.append(history)
        files = {trial.data: "metrics.csv"} | {name: f"metrics-{name}.csv" for name in trial.also_on}
        for tested_on, file in files.items():
            table, place = read_table(folder / file), names | {"tested_on": tested_on}
            whence = {"train_seed" if k == "seed" else k: v for k, v in place.items()}
            tables.append(table.assign(**whence, base=trial.model))
            rows.append(place | _summary_row(trial, card, table, history))
        kept = ("commit", "date", "data_digest", "seconds", "machine", "precision", "recipe", "sizes", "best_epoch")
        runs.append({**names, "folder": folder.name, **{k: card.get(k) for k in kept}})
    summary = pd.DataFrame(rows)
    _write_csv(_each_once(pd.concat(tables)), output / "metrics.csv")
    _write_csv(pd.concat(histories) if histories else pd.DataFrame(columns=["run", "seed"]), output / "history.csv")
    _write_csv(summary, output / "summary.csv")
    largest = max(runs, key=lambda run: (run["sizes"] or {}).get("train", 0))
    write_run_card(
        output / CARD_FILE,
        command=command,
        data_digest=largest["data_digest"],
        seconds=sum(run["seconds"] for run in runs),
        commit=commit,
        experiment=experiment.name,
        title=experiment.title,
        data=experiment.data,
        split=experiment.score,
        prompts=list(experiment.prompts),
        complete=len(finished) == len(experiment.trials),
        runs=runs,
    )
    return summary


def _each_once(table: pd.DataFrame) -> pd.DataFrame:
    """Without what an earlier run scored as well: fills know no model, and untrained ones no training."""
    own = table["model"] == "tuned"
    base = table["base"].where(table["model"] == "zero-shot", "")
    again = table.assign(base=base).duplicated(["model", "base", "prompt", "case", "tested_on"])
    return table[own | ~again]


def _summary_row(trial: Trial, card: dict[str, Any], table: pd.DataFrame, history: pd.DataFrame) -> dict[str, Any]:
    metrics = card["metrics"]
    row = {
        "model": trial.model,
        "recipe": trial.recipe.name if trial.recipe else "zero-shot",
        "changes": "; ".join(f"{key} {value}" for key, value in trial.changes.items()),
        "n_train": metrics.get("n_train", 0),
        "n_scored": table["case"].nunique(),
        "best_epoch": card.get("best_epoch"),
        "dev_dice": history["dev_dice"].max() if len(history) else None,
    }
    for (model, prompt), dice in table.groupby(["model", "prompt"], sort=False)["dice"].mean().items():
        row[f"{model}_{prompt}"] = dice
    # What a specialist gains over its own random weights is no news.
    compares = trial.recipe and trial.model not in SPECIALISTS
    gain = paired_gain(table, metrics["prompt"]) if compares else (None, None, None)
    row |= {"gain_prompt": metrics.get("prompt"), **dict(zip(("gain", "gain_low", "gain_high"), gain, strict=True))}
    seconds = {"seconds_encode": metrics["seconds_encode"], "seconds_train": metrics.get("seconds_train", 0)}
    return row | seconds | {"seconds": card["seconds"], "peak_memory_mb": metrics["peak_memory_mb"]}


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    with atomic_write(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6f", lineterminator="\n")
