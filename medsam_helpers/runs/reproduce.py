"""`medsam reproduce`: the runs of an experiment, each trained once, and their record."""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from medsam_helpers.runs.checks import check_names, check_output_dir
from medsam_helpers.runs.settings import RunConfig
from medsam_helpers.data.case import Cases, Dataset
from medsam_helpers.data.sources import load_data
from medsam_helpers.data.folds import everything, make_folds, with_training_of
from medsam_helpers.data.views import views_of
from medsam_helpers.sam.embeddings import EmbeddingStore
from medsam_helpers.evaluation.evaluate import evaluate
from medsam_helpers.runs.finetune import embed_cases, finetune, run_folder_of, weights_of
from medsam_helpers.runs.experiments import FOLDER, Experiment, Trial, experiment_names, read_experiment, sources_of
from medsam_helpers.files import atomic_write, find_checkpoint
from medsam_helpers.device import peak_mb, restart_peak
from medsam_helpers.sam.tuned import CARD_FILE, read_card
from medsam_helpers.runs.record import read_record, record_of_run, write_record
from medsam_helpers.runs.card import git_commit, write_run_card
from medsam_helpers.evaluation.tables import write_table
from medsam_helpers.sam.segmenter import Segmenter
from medsam_helpers.training.state import STATE_FILE

RESULTS = FOLDER.parent / "notebooks" / "results"


def command(args: Namespace) -> dict[str, Any]:
    """What the command line calls: list, or run and say where the record is."""
    if args.list or args.name is None:
        for name in experiment_names():
            experiment = read_experiment(name)
            print(f"{name:18} {len(experiment.trials):2} runs on {experiment.data}: {experiment.title}")
        return {"experiments": experiment_names()}
    experiment = read_experiment(args.name)
    sources = sources_of(experiment, args.data or [])
    summary = reproduce(experiment, sources, args.output, command=args.command_line, only_missing=args.missing)
    output = args.output or RESULTS / args.name
    print(summary[["run", "seed", "fold", "tested_on", "n_train", "dev_dice", "gain"]].to_string(index=False))
    print(f"written to {output}: metrics.csv, history.csv, summary.csv, run_card.json")
    return {"folder": str(output), "runs": len(summary)}


def reproduce(
    experiment: Experiment,
    sources: Mapping[str, str] | None = None,
    output: Path | None = None,
    show_progress: bool = True,
    command: str = "",
    only_missing: bool = False,
) -> pd.DataFrame:
    """Run what was not run yet, and record all of it after each run; gives the summary, a run and test set a row.

    What was run lies in the cache. A record that came from another machine is begun anew, or added to.

    Args:
        experiment: see `experiments.read_experiment`.
        sources: see `experiments.sources_of`.
        output: for `metrics.csv`, `history.csv`, `summary.csv` and `run_card.json`. Default: `notebooks/results/NAME`.
        show_progress: show the bars.
        command: for the run card; default: this process's command line.
        only_missing: take the runs that the record at `output` holds already, of the same settings, weights and
            pixels, as they are there.
    Raises:
        MedsamError: any of its kinds; the runs before it are recorded.
    """
    output, commit = output or RESULTS / experiment.name, git_commit()
    sources, command = sources or sources_of(experiment, []), command or shlex.join(sys.argv)
    check_output_dir(output, mark=CARD_FILE, never="decoder.safetensors")
    for model, start in {(trial.model, trial.start) for trial in experiment.trials}:
        check_names(model=model, checkpoint=find_checkpoint(start) if start else None)
    for source in sources.values():
        check_names(data=source)
    load, recorded = _Loader(experiment, sources), read_record(output) if only_missing else {}
    folders = [working_folder(experiment, trial, load(trial).digest) for trial in experiment.trials]
    runs = [
        run if (run := recorded.get(folder.name)) and run.serves(trial) else None
        for trial, folder in zip(experiment.trials, folders, strict=True)
    ]
    for index, (trial, folder) in enumerate(zip(experiment.trials, folders, strict=True)):
        if show_progress:
            there = " (recorded)" if runs[index] else ""
            print(f"{experiment.name}, run {index + 1} of {len(runs)}: {trial}{there}", file=sys.stderr)
        if not runs[index]:
            _finish(experiment, trial, load, folder, show_progress, command)
            runs[index] = record_of_run(trial, folder)
        summary = write_record(experiment, [run for run in runs if run], output, command, commit)
    return summary


class _Loader:
    """The data of a trial; the last one is kept, since reading a digest decodes every image."""

    def __init__(self, experiment: Experiment, sources: Mapping[str, str]) -> None:
        self.experiment, self.sources = experiment, sources
        self._known: tuple[Any, Dataset] | None = None

    def __call__(self, trial: Trial) -> Dataset:
        key = (trial.data, sorted(_limits(self.experiment, trial).items()), trial.fold, dict(trial.train_with))
        if self._known is None or self._known[0] != key:
            self._known = (key, self._load(trial))
        return self._known[1]

    def _load(self, trial: Trial) -> Dataset:
        dataset = load_data(self.sources[trial.data], **_limits(self.experiment, trial))
        if trial.fold:
            number, count = trial.fold
            dataset = make_folds(dataset, count)[number - 1]
        for name, count in trial.train_with.items():
            limits = {"train_limit": count, "dev_limit": max(1, count // 10), "val_limit": 0}
            dataset = with_training_of(dataset, load_data(self.sources[name], **limits))
        return dataset

    def elsewhere(self, name: str, part: str) -> Cases:
        """The cases of another data set that a trial is scored on."""
        if part == "all":
            return everything(load_data(self.sources[name]))
        return load_data(self.sources[name], train_limit=0, dev_limit=0).val


def working_folder(experiment: Experiment, trial: Trial, data_digest: str) -> Path:
    """Where a trial is trained; the same for every experiment that asks for the same, whatever it calls it."""
    values = {key: value for key, value in trial.recipe.as_dict().items() if key != "source"} if trial.recipe else {}
    judged = [experiment.score, experiment.prompts, experiment.dev_jitter_1024]
    identity = [trial.model, weights_of(trial.model), sorted(values.items()), trial.seed, data_digest, judged]
    if trial.checkpoint:
        identity.append(weights_of(str(find_checkpoint(trial.checkpoint))))
    if experiment.box_mode and not trial.recipe:  # a recipe holds it
        identity.append(experiment.box_mode)
    if trial.start:
        identity.append(["start", *weights_of(str(find_checkpoint(trial.start)))])
    if trial.tta:
        identity.append("tta")
    return run_folder_of(identity)


def _limits(experiment: Experiment, trial: Trial) -> dict[str, Any]:
    limits = {"train_limit": trial.train_limit, "dev_limit": experiment.dev_limit, "val_limit": experiment.val_limit}
    if trial.recipe is None and experiment.score == "val":
        limits["dev_limit"] = 0
    return limits | ({"val_limit": 0} if experiment.score == "dev" else {})


def _finish(
    experiment: Experiment, trial: Trial, load: _Loader, folder: Path, show_progress: bool, command: str
) -> None:
    """Do what the trial's folder lacks: the run, and its scores on other data sets."""
    if not (folder / "README.md").exists():
        _take_training_over(experiment, trial, load, folder)
        _run(experiment, trial, load(trial), load.sources[trial.data], folder, show_progress, command)
    for name, part in trial.also_on.items():
        if not (folder / f"metrics-{name}.csv").exists():
            checkpoint = folder if trial.recipe else trial.checkpoint
            cases = load.elsewhere(name, part)
            _, table, *_ = _score(experiment, trial, checkpoint, cases, show_progress)
            write_table(table, folder / f"metrics-{name}.csv")


def _take_training_over(experiment: Experiment, trial: Trial, load: _Loader, folder: Path) -> None:
    """How often a model looks does not change its training: where the other one of the two was trained, take that."""
    other = working_folder(experiment, replace(trial, tta=not trial.tta), load(trial).digest)
    if (other / STATE_FILE).exists() and not (folder / STATE_FILE).exists():
        with atomic_write(folder / STATE_FILE) as temporary:
            shutil.copy(other / STATE_FILE, temporary)


def _run(
    experiment: Experiment,
    trial: Trial,
    dataset: Dataset,
    source: str,
    folder: Path,
    show_progress: bool,
    command: str,
) -> None:
    if trial.recipe is None:
        _score_as_it_is(experiment, trial, dataset, folder, show_progress, command)
        return
    options = _limits(experiment, trial) | {"seed": trial.seed, "tta": trial.tta, "start": trial.start}
    config = RunConfig(model=trial.model, data=source, recipe=trial.recipe.name, **options)
    finetune(
        config,
        folder,
        show_progress,
        command,
        recipe=trial.recipe,
        dataset=dataset,
        split=experiment.score,
        prompts=experiment.prompts,
        dev_jitter_1024=experiment.dev_jitter_1024,
    )


def _score_as_it_is(
    experiment: Experiment, trial: Trial, dataset: Dataset, folder: Path, show_progress: bool, command: str
) -> None:
    """Score the base model, and the trial's checkpoint where it has one."""
    started, commit = time.perf_counter(), git_commit()
    restart_peak()
    card = read_card(find_checkpoint(trial.checkpoint)) if trial.checkpoint else {}
    cases = getattr(dataset, experiment.score)
    base, table, encoded, seconds = _score(experiment, trial, trial.checkpoint, cases, show_progress)
    write_table(table, folder / "metrics.csv")
    metrics = {"encoded": encoded, "seconds_encode": round(seconds, 1), "peak_memory_mb": peak_mb()}
    if trial.checkpoint:
        metrics |= {"prompt": card["metrics"]["prompt"], "n_train": card["sizes"]["train"]}
    write_run_card(
        folder / CARD_FILE,
        command=command,
        data_digest=dataset.digest,
        seconds=time.perf_counter() - started,
        commit=commit,
        precision=base.precision,
        metrics=metrics,
    )
    with atomic_write(folder / "README.md") as temporary:
        temporary.write_text(
            f"{trial.checkpoint or trial.model}, scored as it is on {experiment.score}.\n", encoding="utf-8"
        )


def _score(
    experiment: Experiment, trial: Trial, checkpoint: str | Path | None, cases: Cases, show_progress: bool
) -> tuple[Segmenter, pd.DataFrame, int, float]:
    """A trial's base, the scores of it and of a checkpoint beside it, the images encoded for that, and the seconds."""
    base = Segmenter.load(trial.model, tta=trial.tta and not checkpoint)
    base.store = EmbeddingStore.for_model(base.info, base.precision)
    models, views = {"zero-shot": base.predict_case}, base.views
    if checkpoint:
        tuned = Segmenter.load(checkpoint, store=base.store, tta=trial.tta)
        models, views = models | {"tuned": tuned.predict_case}, tuned.views
    encoded, seconds = embed_cases(base, views_of(cases, views), show_progress)
    box_mode = trial.recipe.box_mode if trial.recipe else experiment.box_mode or "union"
    table = evaluate(cases, models, prompts=experiment.prompts, box_mode=box_mode, show_progress=show_progress)
    return base, table, encoded, seconds
