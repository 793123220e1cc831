"""One run from end to end: data, embeddings, training, scores, and everything about it on disk."""

from __future__ import annotations

import copy
import hashlib
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from accelerate import PartialState
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from medsam_helpers import plotting
from medsam_helpers.cards import write_model_card
from medsam_helpers.checks import claim_folder
from medsam_helpers.config import RunConfig
from medsam_helpers.data import Case, Dataset, load_data
from medsam_helpers.embeddings import EmbeddingStore
from medsam_helpers.errors import DataError
from medsam_helpers.evaluation import case_boxes, evaluate
from medsam_helpers.files import atomic_write, cache_dir
from medsam_helpers.models import load_sam, save_decoder
from medsam_helpers.models.decoder import part_state
from medsam_helpers.recipes import Recipe
from medsam_helpers.runcard import write_run_card
from medsam_helpers.scores import paired_gain, summarise, write_table
from medsam_helpers.segmenter import Segmenter
from medsam_helpers.training import FitResult, fit
from medsam_helpers.training_state import STATE_FILE
from medsam_helpers.weights import WEIGHTS


@dataclass(frozen=True)
class Finetuned:
    """A finished run: both models on one store of embeddings, the scores on val, and the folder they lie in."""

    zero_shot: Segmenter
    tuned: Segmenter
    dataset: Dataset
    recipe: Recipe
    table: pd.DataFrame
    figures: dict[str, Any]
    folder: Path


def embed_cases(segmenter: Segmenter, cases: Sequence[Case], show_progress: bool = True) -> tuple[int, float]:
    """Fill the segmenter's store with the cases' embeddings; each of several processes does its share.

    Returns:
        How many images this process encoded, and the seconds that encoding took (not reading).
    """
    state, seconds = PartialState(), 0.0

    def images():
        nonlocal seconds
        share = range(state.process_index, len(cases), state.num_processes)
        for index in tqdm(share, desc=f"embed ({segmenter.precision})", unit="image", disable=not show_progress):
            case = cases[index]

            def encode(case: Case = case):
                nonlocal seconds
                started = time.perf_counter()
                features = segmenter.embed(case.image).features[0]
                seconds += time.perf_counter() - started
                return features

            yield case.image_digest, encode

    encoded = segmenter.store.build(images())
    state.wait_for_everyone()
    segmenter.store.reload()
    return encoded, seconds


def prompt_name(jitter_1024: float) -> str:
    """The name of a jitter in tables: "exact", "j20", "j2.5"; every digit, since the draw is made from the name."""
    return f"j{np.format_float_positional(jitter_1024, trim='-')}" if jitter_1024 else "exact"


def run_finetune(config: RunConfig, output: Path, show_progress: bool = True, command: str = "") -> Finetuned:
    """Fine-tune, score once on val, and write everything to `output`.

    Writes `decoder.safetensors`, `run_card.json`, `README.md` (model card), `history.csv`, `metrics.csv` (an image a
    row), `summary.md` and `before_after.png`. A run that was stopped goes on when called again.

    Args:
        config: what to run.
        output: folder, made where missing.
        show_progress: show the bars.
        command: for the run card; default: this process's command line.
    Raises:
        MedsamError: any of its kinds; nothing is half-written, and nothing that is no run's is overwritten.
    """
    started = time.perf_counter()
    recipe = config.full_recipe()
    claim_folder(output, mark=STATE_FILE)
    dataset = load_data(config.data, **config.limits())
    _check_splits(dataset)
    model = load_sam(config.model, show_progress)
    zero_shot = Segmenter(model, precision=recipe.precision)
    zero_shot.store = store = EmbeddingStore.for_model(zero_shot.info, zero_shot.precision)
    encoded, seconds_encode = 0, 0.0
    for split in (dataset.train, dataset.dev, dataset.val):
        count, seconds = embed_cases(zero_shot, split, show_progress)
        encoded, seconds_encode = encoded + count, seconds_encode + seconds

    tuned_model = copy.deepcopy(model)
    result = fit(
        tuned_model, dataset.train, dataset.dev, recipe, store, output, seed=config.seed, show_progress=show_progress
    )
    tuned = Segmenter(tuned_model, precision=recipe.precision, store=store)
    prompt = prompt_name(recipe.jitter_1024)
    prompts = list(dict.fromkeys(["exact", prompt]))
    models = {"zero-shot": zero_shot.predict_case, "tuned": tuned.predict_case}
    table = evaluate(dataset.val, models, prompts=prompts, box_mode=recipe.box_mode)
    figures = {
        **_headline(table, prompt),
        "prompt": prompt,
        "n_train": len(dataset.train),
        "n_dev": len(dataset.dev),
        "n_val": table["case"].nunique(),
        "seconds_encode": round(seconds_encode, 1),
        "seconds_train": round(result.seconds, 1),
        "encoded": encoded,
        "precision": result.precision,
        "best_epoch": result.best_epoch,
        "left_out": name_left_out(dataset, table, config.data),
        "checkpoint": str(output),
    }
    finished = Finetuned(zero_shot, tuned, dataset, recipe, table, figures, output)
    if PartialState().is_main_process:
        _write(finished, config, result, command or shlex.join(sys.argv), time.perf_counter() - started)
    return finished


def _check_splits(dataset: Dataset) -> None:
    """Found out now, not after the images were embedded and the model was trained."""
    empty = [split for split in ("train", "dev", "val") if not len(getattr(dataset, split))]
    if empty:
        raise DataError(
            f"{dataset}: fine-tuning needs cases in each split, {' and '.join(empty)} has none: list some in "
            f"{empty[0]}.txt, or raise the limit"
        )


def _headline(table: pd.DataFrame, prompt: str) -> dict[str, Any]:
    means = table[table["prompt"] == prompt].groupby("model")["dice"].mean()
    gain = paired_gain(table, prompt)
    return {
        "zero_shot_dice": round(means["zero-shot"], 4),
        "tuned_dice": round(means["tuned"], 4),
        "gain": round(gain.mean, 4),
        "gain_ci95": [round(gain.low, 4), round(gain.high, 4)],
        "box_dice": round(means["box"], 4),
        "ellipse_dice": round(means["ellipse"], 4),
    }


def name_left_out(dataset: Dataset, table: pd.DataFrame, source: str) -> list[str]:
    """What was not used, each with the reason; files by their place in the data's folder, since cards are shared."""
    folder = f"{Path(source).expanduser()}{os.sep}"
    return [text.replace(folder, "") for text in (*dataset.left_out, *table.attrs["left_out"])]


def _write(run: Finetuned, config: RunConfig, result: FitResult, command: str, seconds: float) -> None:
    output, dataset, recipe, info = run.folder, run.dataset, run.recipe, run.tuned.info
    shown = config.but(data=dataset.name, model=info.name)  # names in place of paths
    write_table(run.table, output / "metrics.csv")
    with atomic_write(output / "history.csv") as temporary:
        result.history.to_csv(temporary, index=False)
    with atomic_write(output / "summary.md") as temporary:
        text = summary_text(run.table, f"{shown}", f"{dataset}; scored on val")
        temporary.write_text(text, encoding="utf-8")
    card = write_run_card(
        output / "run_card.json",
        command=command,
        data_digest=dataset.digest,
        seconds=seconds,
        base=info.name,
        base_digest=info.base_digest,
        base_path=None if config.model in WEIGHTS else str(Path(config.model).expanduser().resolve()),
        recipe=recipe.as_dict(),
        config=asdict(shown),
        data={"name": dataset.name, "licence": dataset.licence, "citation": dataset.citation},
        sizes={"train": len(dataset.train), "dev": len(dataset.dev), "val": len(dataset.val)},
        precision=result.precision,
        best_epoch=result.best_epoch,
        metrics={k: v for k, v in run.figures.items() if k != "checkpoint"},
    )
    save_decoder(part_state(run.tuned.model, recipe.trainable), output, card)
    with atomic_write(output / "before_after.png") as temporary:
        picture(run).savefig(temporary, dpi=110)
    # Last, so that its presence says that the folder is complete.
    write_model_card(output / "README.md", card)


def summary_text(table: pd.DataFrame, title: str, about: str) -> str:
    """The means of a table as a Markdown page; `about` says over which cases they are."""
    shown = summarise(table)
    head = f"# {title}\n\n{about}. Means at original resolution; interval: 95 %, bootstrap over images.\n\n"
    columns = ("model", "prompt", "n", "Dice", "interval", "IoU", "HD95 (% of diagonal)", "NSD")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for row in shown.itertuples():
        lines.append(
            f"| {row.model} | {row.prompt} | {row.n} | {row.dice:.3f} | {row.dice_low:.3f} to {row.dice_high:.3f} "
            f"| {row.iou:.3f} | {row.hd95_percent:.2f} | {row.nsd:.3f} |"
        )
    return head + "\n".join(lines) + "\n"


def picture(run: Finetuned, rows: int = 3) -> Figure:
    """Before and after on the cases with the largest loss of Dice, the median and the largest gain: none picked."""
    by_case = run.table[run.table["prompt"] == run.figures["prompt"]].pivot(
        index="case", columns="model", values="dice"
    )
    order = (by_case["tuned"] - by_case["zero-shot"]).sort_values().index
    ranks = np.unique(np.linspace(0, len(order) - 1, rows).round().astype(int))
    cases = [run.dataset.val[run.dataset.val.names.index(order[rank])] for rank in ranks]
    boxes = [case_boxes(case, run.recipe.box_mode, run.recipe.jitter_1024, seed=0) for case in cases]
    before, after = (
        [model.predict_case(case, box)[0].any(axis=0) for case, box in zip(cases, boxes, strict=True)]
        for model in (run.zero_shot, run.tuned)
    )
    note = f"{run.dataset.name}: largest loss, median and largest gain of {len(order)}, {run.figures['prompt']} boxes"
    return plotting.before_after(cases, boxes, before, after, note)


def get_or_train(config: RunConfig, show_progress: bool = True) -> Path:
    """The folder of this run's decoder checkpoint in the cache; trained now where it is not there yet.

    The folder depends on the settings, the recipe's values and the pixels, so a changed one trains anew.
    """
    data = load_data(config.data, **config.limits()).digest
    identity = [sorted(asdict(config).items()), sorted(config.full_recipe().as_dict().items()), data]
    folder = cache_dir() / "runs" / hashlib.sha256(repr(identity).encode()).hexdigest()[:16]
    if not (folder / "README.md").exists():
        run_finetune(config, folder, show_progress)
    return folder


def evaluate_model(
    segmenter: Segmenter, cases: Sequence[Case], model_name: str, jitter_1024: float, box_mode: str
) -> pd.DataFrame:
    """Scores of one model, embeddings from (and into) its store."""
    embed_cases(segmenter, cases)
    return evaluate(cases, {model_name: segmenter.predict_case}, prompts=[prompt_name(jitter_1024)], box_mode=box_mode)
