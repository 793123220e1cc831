"""One run from end to end: data, embeddings, training, scores, and everything about it on disk."""

import copy
import hashlib
import shlex
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from itertools import cycle, groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
import torch
from filelock import FileLock

from medsam_helpers.data.case import Cases, Dataset, set_of
from medsam_helpers.data.loading import load_data
from medsam_helpers.data.views import views_of
from medsam_helpers.device import default_device, effective_precision
from medsam_helpers.errors import DataError, some
from medsam_helpers.evaluation.evaluate import evaluate, false_positives
from medsam_helpers.evaluation.predictors import WITH_TTA, Model
from medsam_helpers.files import cache_dir, check_output_dir, find_checkpoint, one_writer
from medsam_helpers.prompts import prompt_name
from medsam_helpers.runs.embed import embed_cases
from medsam_helpers.runs.settings import RunConfig, check_names, config_from_environment
from medsam_helpers.sam.checkpoints import sha256_of
from medsam_helpers.sam.embeddings import EmbeddingStore
from medsam_helpers.sam.loading import load_sam
from medsam_helpers.sam.model import add_automatic_head, check_parts
from medsam_helpers.sam.segmenter import Segmenter
from medsam_helpers.sam.tuned import DECODER_FILE, SEEN_FILE, load_checkpoint
from medsam_helpers.training.loop import fit
from medsam_helpers.training.processes import joined, processes, share_of
from medsam_helpers.training.recipes import Recipe
from medsam_helpers.training.state import STATE_FILE

if TYPE_CHECKING:
    from medsam_helpers.runs.folder import Finetuned

# Raised with each change of what lies in a run's folder: a cache that outlived an update holds older ones.
_FORMAT = 2


@one_writer
def finetune(
    config: RunConfig,
    output: Path,
    show_progress: bool = True,
    command: str = "",
    *,
    recipe: Recipe | None = None,
    dataset: Dataset | None = None,
    log_with: Any = None,
    split: Literal["dev", "val"] = "val",
    prompts: Sequence[str] = ("exact",),
    dev_jitter_1024: float | None = None,
) -> "Finetuned":
    """The finished run: trained, scored once, and written to `output`. One that was stopped goes on when called again.

    Writes `decoder.safetensors`, `run_card.json`, `README.md` (model card), `seen_images.csv`, `history.csv`,
    `metrics.csv` (an image a row), `summary.md` and `before_after.png`.

    Args:
        command: for the run card; default: this process's command line.
        recipe, dataset: in place of the config's; a sweep's winner, a fold, say.
        log_with: see `fit`.
        split: to score on. With "dev", for a search, val is not even read.
        prompts: to score with, beside the one that the run is judged by.
        dev_jitter_1024: see `fit`; where it is given, the run is judged by it too.
    Raises:
        MedsamError: any of its kinds; nothing is half-written, and nothing that is no run's is overwritten.
    """
    from medsam_helpers.runs.card import git_commit, own_memory_mb
    from medsam_helpers.runs.folder import Finetuned, headline, name_left_out, write_run
    from medsam_helpers.runs.seen import read_seen, seen_among
    from medsam_helpers.sam.unfrozen import unfrozen

    started, commit = time.perf_counter(), git_commit()
    recipe = recipe or config.full_recipe()
    check_output_dir(output, mark=STATE_FILE)
    start = config.start_folder
    check_names(checkpoint=start)
    dataset = dataset or load_data(config.data, **(config.selection() | ({"val_limit": 0} if split == "dev" else {})))
    whole, dataset = dataset, dataset if recipe.needs_no_prompt else dataset.with_lesions()
    if empty := [name for name in ("train", "dev", split) if not len(dataset.splits[name])]:
        told = f"fine-tuning needs cases with a lesion in each split, {' and '.join(empty)} has none"
        raise DataError(f"{dataset}: {told}: list some in {empty[0]}.txt, or raise the limit")
    model = unfrozen(load_sam(config.model, show_progress), recipe.as_dict(), config.seed)
    zero_shot = Segmenter(model, precision=recipe.precision)
    tuned_model = copy.deepcopy(model)
    if start:  # if its encoder was trained and is not trained on here, this one's embeddings are its own
        tuned_model = load_checkpoint(start, base=tuned_model)
    if "automatic_head" in recipe.trainable:
        add_automatic_head(tuned_model, config.seed)
    check_parts(tuned_model, recipe.trainable)
    tuned = Segmenter(tuned_model, precision=recipe.precision, tta=config.tta)
    for segmenter in (zero_shot, tuned):
        segmenter.store = store = EmbeddingStore.for_model(segmenter.info, segmenter.precision)
    scored = whole.with_lesions().splits[split]
    known = seen_among(scored, read_seen(start)) if start else []
    if known:
        told = f"{len(known)} of the {len(scored)} images of {split} ({some(known)})"
        warnings.warn(f"{start} was trained or selected on {told}: scores flatter what starts from it", stacklevel=2)
    after = views_of(scored, tuned.views)
    seen = [(tuned, views_of(dataset.train, recipe.views)), (tuned, dataset.dev), (tuned, after)]
    seen += [(zero_shot, after)] if zero_shot.info != tuned.info else []
    counts, seconds = zip(*(embed_cases(one, cases, show_progress) for one, cases in seen), strict=True)
    options = {"seed": config.seed, "log_with": log_with, "show_progress": show_progress}
    options |= {"dev_jitter_1024": dev_jitter_1024, "start": sha256_of(start / DECODER_FILE) if start else None}
    train = balanced(dataset.train) if config.balanced else dataset.train
    result = fit(tuned_model, train, dataset.dev, recipe, store, output, **options)
    first, last = result.history["dev_dice"].iloc[[0, -1]]
    if last < 0.5 * first:
        told = f"training diverged: dev Dice fell from {first:.3f} to {last:.3f}"
        warnings.warn(f"{told}; try a lower learning rate (now {recipe.lr:g})", stacklevel=2)
    prompt = prompt_name(recipe.jitter_1024 if dev_jitter_1024 is None else dev_jitter_1024)
    prompt = "none" if recipe.needs_no_prompt else prompt
    prompts = list(dict.fromkeys([*prompts, prompt]))
    models = {"zero-shot": zero_shot}
    if config.tta:  # the base with it too, so that like is compared with like
        models[f"zero-shot{WITH_TTA}"] = Segmenter(model, precision=recipe.precision, store=zero_shot.store, tta=True)
    models["tuned"] = tuned
    options = {"box_mode": recipe.box_mode, "group_of": dataset.group_of, "show_progress": show_progress}
    table = evaluate_together(scored, models, prompts=prompts, **options)
    loaded, used = (sum(map(len, one.splits.values())) for one in (whole, dataset))
    apart: dict[str, float] = {"without_lesion": loaded - used}
    if not tuned.needs_prompt:
        normal = [name for name in whole.splits[split].names if name not in scored.names]
        apart |= false_positives(whole.splits[split].named(normal), tuned)
    table.attrs |= apart
    sizes = {"n_train": len(dataset.train), "n_dev": len(dataset.dev), f"n_{split}": table["case"].nunique()}
    costs: dict[str, Any] = {"seconds_encode": round(sum(seconds), 1), "seconds_train": round(result.seconds, 1)}
    costs |= {"encoded": sum(counts), "own_memory_mb": own_memory_mb()}
    if torch.cuda.is_available():  # the most that tensors took on this process's GPU
        costs["peak_gpu_mb"] = round(torch.cuda.max_memory_allocated() / 1e6)
    figures = {**headline(table, prompt), "prompt": prompt, **sizes, "seen_before": len(known), **costs}
    figures |= {"precision": result.precision, "best_epoch": result.best_epoch, **apart}
    figures |= {"missed": table.attrs["missed"], "left_out": name_left_out(dataset, table, config.data)}
    figures["checkpoint"] = str(output)
    finished = Finetuned(zero_shot, tuned, dataset, recipe, table, figures, output, split)
    if processes().is_main_process:
        write_run(finished, config, result, command or shlex.join(sys.argv), time.perf_counter() - started, commit)
    processes().wait_for_everyone()
    return finished


def balanced(cases: Cases) -> Cases:
    """The cases, those of the smaller data sets more than once, so that there are as many of each as of the largest."""
    sets = [list(names) for _, names in groupby(sorted(cases.names, key=set_of), key=set_of)]
    most = max(map(len, sets))
    return cases.named([name for names in sets for name in islice(cycle(names), most)])


def evaluate_together(cases: Cases, models: Mapping[str, Model], **options: Any) -> pd.DataFrame:
    """The table of `evaluate`, the cases shared by the processes that run together; each gets the whole."""
    share = share_of(len(cases))
    tables = joined([evaluate(cases[share.start : share.stop], models, **options)] if share else [])
    table = pd.concat(tables, ignore_index=True)
    table.attrs = {name: [case for one in tables for case in one.attrs[name]] for name in tables[0].attrs}
    return table


def get_or_train(config: RunConfig | None = None, show_progress: bool = True) -> Path:
    """The folder of this run's decoder checkpoint in the cache; trained now where it is not there yet.

    Of two notebooks that ask at the same time one trains, and the other waits for it. Without a `config` it is the run
    that the environment asks for.
    """
    config = config or config_from_environment()
    folder = run_folder(config, load_data(config.data, **config.selection()).digest)

    def is_missing() -> bool:  # the model card is written last; older versions did not write what was seen
        return any(joined([not all((folder / name).exists() for name in ("README.md", SEEN_FILE))]))

    if is_missing():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock") if processes().is_main_process else nullcontext():
            if is_missing():
                finetune(config, folder, show_progress)
    return folder


def run_folder(config: RunConfig, data_digest: str, *more: Any) -> Path:
    """The cache's folder for a run of these settings, recipe, weights and pixels, and of what `more` names.

    A run in another precision, on a GPU say, is another one.
    """
    given = (config.model, config.start, getattr(config, "checkpoint", None))
    places = [find_checkpoint(place) for place in given if place]
    files = ([place, *sorted(place.glob("model*.safetensors")), place / DECODER_FILE] for place in places)
    weights = [[sha256_of(file) for file in each if file.is_file()] for each in files]  # none of a name: it is pinned
    precision = effective_precision(config.full_recipe().precision, default_device())
    identity = [_FORMAT, sorted(config.identity().items()), precision, weights, data_digest, *more]
    return cache_dir() / "runs" / hashlib.sha256(repr(identity).encode()).hexdigest()[:16]
