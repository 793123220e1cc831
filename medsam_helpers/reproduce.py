"""`medsam reproduce`: the runs of an experiment, each trained once, and their record."""

from __future__ import annotations

import json
import shlex
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from medsam_helpers.checks import check_names, claim_folder
from medsam_helpers.config import RunConfig
from medsam_helpers.data import load_data
from medsam_helpers.embeddings import EmbeddingStore
from medsam_helpers.evaluation import evaluate
from medsam_helpers.experiment import embed_cases, run_finetune, run_folder_of, weights_of
from medsam_helpers.experiments import FOLDER, Experiment, Trial, experiment_names, read_experiment
from medsam_helpers.files import atomic_write
from medsam_helpers.memory import peak_mb, restart_peak
from medsam_helpers.runcard import git_commit, write_run_card
from medsam_helpers.scores import paired_gain, read_table, write_table
from medsam_helpers.segmenter import Segmenter

RESULTS = FOLDER.parent / "notebooks" / "results"
_CARD = "run_card.json"


def command(args: Namespace) -> dict[str, Any]:
    """What the command line calls: list, or run and say where the record is."""
    if args.list or args.name is None:
        for name in experiment_names():
            experiment = read_experiment(name)
            print(f"{name:18} {len(experiment.trials):2} runs on {experiment.data}: {experiment.title}")
        return {"experiments": experiment_names()}
    experiment = read_experiment(args.name)
    summary = reproduce(experiment, args.data, args.output, command=args.command_line)
    output = args.output or RESULTS / args.name
    print(summary[["run", "seed", "n_train", "dev_dice", "gain"]].to_string(index=False))
    print(f"written to {output}: metrics.csv, history.csv, summary.csv, run_card.json")
    return {"folder": str(output), "runs": len(summary)}


def reproduce(
    experiment: Experiment,
    data: str | None = None,
    output: Path | None = None,
    show_progress: bool = True,
    command: str = "",
) -> pd.DataFrame:
    """Run what was not run yet, and record all of it after each run; gives the summary, a run a row.

    Args:
        experiment: see `experiments.read_experiment`.
        data: in place of the experiment's own source, such as a folder with the same images.
        output: for `metrics.csv`, `history.csv`, `summary.csv` and `run_card.json`. Default: `notebooks/results/NAME`.
        show_progress: show the bars.
        command: for the run card; default: this process's command line.
    Raises:
        MedsamError: any of its kinds; the runs before it are recorded.
    """
    output, commit = output or RESULTS / experiment.name, git_commit()
    source, command = data or experiment.data, command or shlex.join(sys.argv)
    claim_folder(output, mark=_CARD, never="decoder.safetensors")
    for model in {trial.model for trial in experiment.trials}:
        check_names(model=model, data=source)
    digests: dict[int | None, str] = {}
    finished: list[tuple[Trial, Path]] = []
    for number, trial in enumerate(experiment.trials, 1):
        if show_progress:
            print(f"{experiment.name}, run {number} of {len(experiment.trials)}: {trial}", file=sys.stderr)
        if trial.train_limit not in digests:
            digests[trial.train_limit] = load_data(source, **_limits(experiment, trial)).digest
        folder = working_folder(experiment, trial, digests[trial.train_limit])
        if not (folder / "README.md").exists():
            _run(experiment, trial, source, folder, show_progress, command)
        finished.append((trial, folder))
        summary = _record(experiment, finished, output, command, commit)
    return summary


def working_folder(experiment: Experiment, trial: Trial, data_digest: str) -> Path:
    """Where a trial is trained; the same for every experiment that asks for the same, whatever it calls it."""
    values = {key: value for key, value in trial.recipe.as_dict().items() if key != "source"} if trial.recipe else {}
    judged = [experiment.score, experiment.prompts, experiment.dev_jitter_1024]
    return run_folder_of(
        [trial.model, weights_of(trial.model), sorted(values.items()), trial.seed, data_digest, judged]
    )


def _limits(experiment: Experiment, trial: Trial) -> dict[str, Any]:
    limits = {"train_limit": trial.train_limit, "dev_limit": experiment.dev_limit, "val_limit": experiment.val_limit}
    if trial.recipe is None and experiment.score == "val":
        limits["dev_limit"] = 0
    return limits | ({"val_limit": 0} if experiment.score == "dev" else {})


def _run(experiment: Experiment, trial: Trial, source: str, folder: Path, show_progress: bool, command: str) -> None:
    limits = _limits(experiment, trial)
    if trial.recipe is None:
        _zero_shot(experiment, trial, load_data(source, **limits), folder, show_progress, command)
        return
    config = RunConfig(model=trial.model, data=source, recipe=trial.recipe.name, seed=trial.seed, **limits)
    run_finetune(
        config,
        folder,
        show_progress,
        command,
        recipe=trial.recipe,
        split=experiment.score,
        prompts=experiment.prompts,
        dev_jitter_1024=experiment.dev_jitter_1024,
    )


def _zero_shot(experiment, trial, dataset, folder: Path, show_progress: bool, command: str) -> None:
    """Score the base model as it is."""
    started, commit = time.perf_counter(), git_commit()
    restart_peak()
    cases, segmenter = getattr(dataset, experiment.score), Segmenter.load(trial.model)
    segmenter.store = EmbeddingStore.for_model(segmenter.info, segmenter.precision)
    encoded, seconds = embed_cases(segmenter, cases, show_progress)
    models = {"zero-shot": segmenter.predict_case}
    table = evaluate(cases, models, prompts=experiment.prompts, show_progress=show_progress)
    write_table(table, folder / "metrics.csv")
    write_run_card(
        folder / _CARD,
        command=command,
        data_digest=dataset.digest,
        seconds=time.perf_counter() - started,
        commit=commit,
        precision=segmenter.precision,
        metrics={"encoded": encoded, "seconds_encode": round(seconds, 1), "peak_memory_mb": peak_mb()},
    )
    with atomic_write(folder / "README.md") as temporary:
        temporary.write_text(f"{segmenter.info.name}, scored as it is on {experiment.score}.\n", encoding="utf-8")


def _record(
    experiment: Experiment, finished: Sequence[tuple[Trial, Path]], output: Path, command: str, commit: str
) -> pd.DataFrame:
    """Write the four files from what lies in the runs' folders."""
    tables, histories, rows, runs = [], [], [], []
    for trial, folder in finished:
        card, table = json.loads((folder / _CARD).read_text(encoding="utf-8")), read_table(folder / "metrics.csv")
        tables.append(table.assign(run=trial.name, train_seed=trial.seed))
        history = pd.DataFrame()
        if trial.recipe:
            history = pd.read_csv(folder / "history.csv").assign(run=trial.name, seed=trial.seed)
            histories.append(history)
        rows.append(_summary_row(trial, card, table, history))
        kept = ("commit", "date", "data_digest", "seconds", "machine", "precision", "recipe", "sizes", "best_epoch")
        runs.append({"run": trial.name, "seed": trial.seed, "folder": folder.name, **{k: card.get(k) for k in kept}})
    summary = pd.DataFrame(rows)
    _write_csv(pd.concat(tables), output / "metrics.csv")
    _write_csv(pd.concat(histories) if histories else pd.DataFrame(columns=["run", "seed"]), output / "history.csv")
    _write_csv(summary, output / "summary.csv")
    largest = max(runs, key=lambda run: (run["sizes"] or {}).get("train", 0))
    write_run_card(
        output / _CARD,
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


def _summary_row(trial: Trial, card: dict[str, Any], table: pd.DataFrame, history: pd.DataFrame) -> dict[str, Any]:
    metrics = card["metrics"]
    row = {
        "run": trial.name,
        "seed": trial.seed,
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
    gain = paired_gain(table, metrics["prompt"]) if trial.recipe else (None, None, None)
    row |= {"gain_prompt": metrics.get("prompt"), **dict(zip(("gain", "gain_low", "gain_high"), gain, strict=True))}
    seconds = {"seconds_encode": metrics["seconds_encode"], "seconds_train": metrics.get("seconds_train", 0)}
    return row | seconds | {"seconds": card["seconds"], "peak_memory_mb": metrics["peak_memory_mb"]}


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    with atomic_write(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6f", lineterminator="\n")
