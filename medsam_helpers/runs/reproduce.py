"""`reproduce`: the runs of an experiment, each trained once, and their record."""

import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from medsam_helpers.data.case import Cases, Dataset
from medsam_helpers.data.loading import load_data
from medsam_helpers.data.views import views_of
from medsam_helpers.files import atomic_write, check_output_dir, find_checkpoint, write_text
from medsam_helpers.runs.card import git_commit, own_memory_mb, write_run_card
from medsam_helpers.runs.embed import embed_cases
from medsam_helpers.runs.experiments import Experiment, Trial
from medsam_helpers.runs.finetune import evaluate_together, finetune, run_folder
from medsam_helpers.runs.folds import everything, make_folds, with_training_of
from medsam_helpers.runs.record import RunRecord, read_record, record_of_run, write_record
from medsam_helpers.runs.recorded import write_table
from medsam_helpers.runs.settings import check_names
from medsam_helpers.sam.segmenter import Segmenter
from medsam_helpers.sam.tuned import CARD_FILE, read_card
from medsam_helpers.settings import BoxMode
from medsam_helpers.training.processes import joined, processes
from medsam_helpers.training.state import STATE_FILE


def reproduce(
    experiment: Experiment,
    sources: Mapping[str, str],
    output: Path,
    command: str,
    show_progress: bool = True,
    only_missing: bool = False,
) -> pd.DataFrame:
    """The summary of an experiment, a run and test set a row; what was not run yet is run, and all of it recorded.

    In `output` are `metrics.csv`, `history.csv`, `summary.csv` and `run_card.json` then, after a `MedsamError` of the
    runs before it. For `sources` see `sources_of`. `only_missing` keeps the runs of the same settings and pixels that
    the record there holds already; without it the record is written anew, from the cache and what is run now.
    """
    commit = git_commit()
    check_output_dir(output, mark=CARD_FILE, never="decoder.safetensors")
    for trial in experiment.trials:
        check_names(model=trial.model, checkpoint=trial.start_folder)
    for source in sources.values():
        check_names(data=source)
    runner, recorded = _Runner(experiment, sources, show_progress, command), read_record(output) if only_missing else []
    runs: list[RunRecord | None] = []
    for trial in experiment.trials:
        digest = runner.cases(trial).digest
        runs.append(next((run for run in recorded if run.serves(trial, digest)), None))
    for index, trial in enumerate(experiment.trials):
        if show_progress:
            there = " (recorded)" if runs[index] else ""
            print(f"{experiment.name}, run {index + 1} of {len(runs)}: {trial}{there}", file=sys.stderr)
        runs[index] = runs[index] or record_of_run(trial, runner.finish(trial))
        done, is_first = [run for run in runs if run], processes().is_main_process
        (summary,) = joined([write_record(experiment, done, output, command, commit)] if is_first else [])
    return summary


@dataclass
class _Runner:
    """Runs the trials of an experiment."""

    experiment: Experiment
    sources: Mapping[str, str]
    show_progress: bool
    command: str
    known: tuple[Any, Dataset] | None = None

    def cases(self, trial: Trial) -> Dataset:
        """The data of a trial; the last one is kept, since reading a digest decodes every image."""
        limits = self.experiment.limits(trial)
        key = (trial.data, limits, trial.fold, trial.train_with)
        if self.known is None or self.known[0] != key:
            dataset = load_data(self.sources[trial.data], **limits)
            if trial.fold and trial.folds:
                dataset = make_folds(dataset, trial.folds)[trial.fold - 1]
            for name, count in trial.train_with.items():
                other = load_data(self.sources[name], train_limit=count, dev_limit=max(1, count // 10), val_limit=0)
                dataset = with_training_of(dataset, other)
            self.known = (key, dataset)
        return self.known[1]

    def folder(self, trial: Trial) -> Path:
        """Where a trial is trained; the same for every experiment that asks for the same, whatever it calls it."""
        judged: list[Any] = [self.experiment.score, self.experiment.prompts, self.experiment.dev_jitter_1024]
        judged += [] if trial.is_trained else [self.experiment.box_mode]  # a recipe holds it
        return run_folder(trial, self.cases(trial).digest, judged)

    def finish(self, trial: Trial) -> Path:
        """Do what the trial's folder lacks: the run, and its scores on other data sets."""
        folder = self.folder(trial)
        if any(joined([not (folder / "README.md").exists()])):
            (self._train if trial.is_trained else self._score_as_it_is)(trial, folder)
        for name in trial.tested_on[1:]:
            path, part = folder / f"metrics-{name}.csv", trial.also_on.get(name)
            if any(joined([not path.exists()])):
                cases, limit = self.cases(trial).splits[self.experiment.score], None if part == "all" else 0
                if part:
                    cases = everything(load_data(self.sources[name], train_limit=limit, dev_limit=limit))
                self._score(trial, cases, path, None if part else trial.also_with)
        processes().wait_for_everyone()  # the first one writes
        return folder

    def _train(self, trial: Trial, folder: Path) -> None:
        # Test-time augmentation does not change the training: where the other one of the two was trained, take that.
        other = self.folder(trial.but(tta=not trial.tta)) / STATE_FILE
        if processes().is_main_process and other.exists() and not (folder / STATE_FILE).exists():
            with atomic_write(folder / STATE_FILE) as temporary:
                shutil.copy(other, temporary)
        config = trial.config().but(data=self.sources[trial.data], **self.experiment.limits(trial))
        judged: Any = {"split": self.experiment.score, "prompts": self.experiment.prompts}
        judged |= {"dev_jitter_1024": self.experiment.dev_jitter_1024}
        finetune(config, folder, self.show_progress, self.command, dataset=self.cases(trial), **judged)

    def _score_as_it_is(self, trial: Trial, folder: Path) -> None:
        """Score the base model, and the trial's checkpoint where it has one."""
        started, commit = time.perf_counter(), git_commit()
        dataset = self.cases(trial)
        precision, encoded, seconds = self._score(trial, dataset.splits[self.experiment.score], folder / "metrics.csv")
        metrics = {"encoded": encoded, "seconds_encode": round(seconds, 1), "own_memory_mb": own_memory_mb()}
        if trial.checkpoint:
            card = read_card(find_checkpoint(trial.checkpoint))
            metrics |= {"prompt": card["metrics"]["prompt"], "n_train": card["sizes"]["train"]}
        if not processes().is_main_process:
            return
        about: Any = {"command": self.command, "data_digest": dataset.digest, "commit": commit, "precision": precision}
        write_run_card(folder / CARD_FILE, seconds=time.perf_counter() - started, **about, metrics=metrics)
        name = trial.checkpoint or trial.model
        write_text(folder / "README.md", f"{name}, scored as it is on {self.experiment.score}.\n")

    def _score(self, trial: Trial, cases: Cases, path: Path, boxes: BoxMode | None = None) -> tuple[str, int, float]:
        """The precision, images encoded and seconds of scoring the base and what was trained; writes `path`."""
        checkpoint = path.parent if trial.is_trained else trial.checkpoint
        models = {"zero-shot": Segmenter.load(trial.base, tta=trial.tta and not checkpoint)}
        models |= {"tuned": Segmenter.load(checkpoint, tta=trial.tta)} if checkpoint else {}
        # Each on embeddings of its own, where its encoder was trained too.
        done = [embed_cases(model, views_of(cases, model.views), self.show_progress) for model in models.values()]
        own = trial.full_recipe().box_mode if trial.is_trained else self.experiment.box_mode or "union"
        asked: Any = {"prompts": self.experiment.prompts, "box_mode": boxes or own}
        table = evaluate_together(cases, models, **asked, show_progress=self.show_progress)
        if processes().is_main_process:
            write_table(table, path)
        return models["zero-shot"].precision, sum(count for count, _ in done), sum(took for _, took in done)
