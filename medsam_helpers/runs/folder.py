"""What a finished run leaves in its folder: scores, summary, picture, decoder, run card and model card."""

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from medsam_helpers.data.case import Case, Dataset, set_of
from medsam_helpers.data.loading import places_of
from medsam_helpers.errors import CheckpointError
from medsam_helpers.evaluation.predictors import BASELINES, WITH_TTA, case_boxes, found_alone
from medsam_helpers.evaluation.tables import paired_gain, pooled_dice, summarise
from medsam_helpers.figures import cases as plotting
from medsam_helpers.files import RELEASED, atomic_write, find_checkpoint, write_text
from medsam_helpers.runs.recorded import write_table
from medsam_helpers.runs.settings import RunConfig
from medsam_helpers.sam.checkpoints import NAMES, sha256_of
from medsam_helpers.sam.model import changed_parts
from medsam_helpers.sam.segmenter import Segmenter
from medsam_helpers.sam.tuned import CARD_FILE, DECODER_FILE, load_checkpoint, part_state, read_card, save_decoder
from medsam_helpers.training.loop import FitResult
from medsam_helpers.training.recipes import Recipe


@dataclass(frozen=True)
class Finetuned:
    """A finished run: both models on one store of embeddings, the scores on a split, and the folder they lie in."""

    zero_shot: Segmenter
    tuned: Segmenter
    dataset: Dataset
    recipe: Recipe
    table: pd.DataFrame
    figures: dict[str, Any]
    folder: Path
    split: Literal["dev", "val"] = "val"


def write_run(run: Finetuned, config: RunConfig, result: FitResult, command: str, seconds: float, commit: str) -> None:
    """Write all that `finetune` promises, the model card last: its presence says that the folder is complete.

    `seconds` is what the whole took, `commit` the code's when it began.
    """
    output, dataset, recipe, info = run.folder, run.dataset, run.recipe, run.tuned.info
    start = config.start_folder
    place, before = find_checkpoint(config.model), run.zero_shot.model
    if start and info.base_digest != run.zero_shot.info.base_digest:  # its encoder was trained, and is not trained on
        first = read_card(start)
        inherited = first["base_digest"] == info.base_digest
        place = find_checkpoint(first.get("base_path") or first["base"]) if inherited else start
        before = load_checkpoint(place)
    has_name = str(place) in NAMES or place.parent == RELEASED
    shown = config.but(data=dataset.name, model=info.name, start=start and start.name)  # names in place of paths
    write_table(run.table, output / "metrics.csv")
    with atomic_write(output / "history.csv") as temporary:
        result.history.to_csv(temporary, index=False)
    write_text(output / "summary.md", summary_text(run.table, f"{shown}", f"{dataset}; scored on {run.split}"))
    from medsam_helpers.runs.card import write_run_card  # needed at the end only
    from medsam_helpers.runs.model_card import write_model_card
    from medsam_helpers.runs.seen import write_seen

    write_seen(output, dataset, start)
    about: Any = {"command": command, "data_digest": dataset.digest, "seconds": seconds, "commit": commit}
    about |= {"base": info.name, "base_digest": info.base_digest}
    about["base_path"] = None if has_name else str(place.resolve())
    about["start"] = {"name": start.name, "sha256": sha256_of(start / DECODER_FILE)} if start else None
    about |= {"recipe": recipe.as_dict(), "config": shown.as_dict()}
    about["data"] = {"name": dataset.name, "licence": dataset.licence, "citation": dataset.citation}
    about["sizes"] = {split: len(cases) for split, cases in dataset.splits.items()}
    about |= {"split": run.split, "precision": result.precision, "best_epoch": result.best_epoch}
    card = write_run_card(output / CARD_FILE, **about, metrics=_lasting(run.figures, output))
    save_decoder(part_state(run.tuned.model, changed_parts(run.tuned.model, before)), output, card)
    with atomic_write(output / "before_after.png") as temporary:
        picture(run).savefig(temporary, dpi=110)
    write_model_card(output / "README.md", card)


def headline(table: pd.DataFrame, prompt: str) -> dict[str, Any]:
    """The figures that a run is known by: mean Dice of each model, and the paired gain, six digits of each.

    With test-time augmentation `gain` is over the base without it, and `gain_over_tta` over the base with it too.
    The interval of fewer than five images is [None, None]. Of several data sets `by_set` has the same for each.
    """
    means = table[table["prompt"] == prompt].groupby("model")["dice"].mean()
    models = [model for model in ("zero-shot", "tuned", *BASELINES, f"zero-shot{WITH_TTA}") if model in means]
    figures: dict[str, Any] = {f"{re.sub('[- ]', '_', model)}_dice": round(means[model], 6) for model in models}
    for base, name in (("zero-shot", "gain"), (f"zero-shot{WITH_TTA}", "gain_over_tta")):
        if base in means:
            figures[name], *figures[f"{name}_ci95"] = paired_gain(table, prompt, base=base).for_json()
    apart = table.groupby(table["case"].map(set_of))
    return figures | ({"by_set": {name: headline(part, prompt) for name, part in apart}} if len(apart) > 1 else {})


def _lasting(figures: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The figures for the card. A finished run that is called again encodes nothing: its card keeps what that took."""
    kept = {key: value for key, value in figures.items() if key != "checkpoint"}
    with suppress(CheckpointError):  # none, or damaged: it is written anew
        earlier = read_card(folder).get("metrics", {})
        kept |= {key: max(kept[key], earlier.get(key, 0)) for key in ("encoded", "seconds_encode")}
    return kept


def name_left_out(dataset: Dataset, table: pd.DataFrame, source: str) -> list[str]:
    """What was not used, each with the reason; files by their place in the data's folder, since cards are shared."""
    left_out = [*dataset.left_out, *table.attrs["left_out"]]
    for place in places_of(source):
        left_out = [text.replace(f"{Path(place).expanduser()}{os.sep}", "") for text in left_out]
    return left_out


def summary_text(table: pd.DataFrame, title: str, about: str) -> str:
    """The means of a table as a Markdown page, and what they say; `about` says over which cases they are."""
    from medsam_helpers.runs.findings import findings  # needed at the end only

    head = f"# {escape(title)}\n\n{escape(about)}. Means at original resolution, with a 95 % interval; "
    head += "pooled: over all pixels.\n\n"
    head += "| model | prompt | n | Dice | interval | pooled Dice | IoU | HD95 (% of diagonal) | NSD |\n"
    head += "|---" * 9 + "|\n"
    row = "| {model} | {prompt} | {n} | {dice:.3f} | {interval} | {pooled:.3f} | {iou:.3f} | "
    row += "{hd95_percent:.2f} | {nsd:.3f} |\n"
    for means in summarise(table).to_dict("records"):
        known = np.isfinite(means["dice_low"])
        interval = "{dice_low:.3f} to {dice_high:.3f}".format(**means) if known else "none"
        rows = table[(table["model"] == means["model"]) & (table["prompt"] == means["prompt"])]
        head += row.format(**means, interval=interval, pooled=pooled_dice(rows))
    return head + "\n" + "".join(f"- {escape(sentence, quote=False)}\n" for sentence in findings(table))


def picture(run: Finetuned) -> Figure:
    """Before and after on the cases with the largest loss of Dice, the median and the largest gain: none picked."""
    rows_of_prompt = run.table[run.table["prompt"] == run.figures["prompt"]]
    by_case = rows_of_prompt.pivot(index="case", columns="model", values="dice")
    order = (by_case["tuned"] - by_case["zero-shot"]).sort_values().index
    ranks = np.unique(np.linspace(0, len(order) - 1, 3).round().astype(int))
    cases = run.dataset.splits[run.split].named(order[ranks].tolist())
    alone, recipe = run.recipe.needs_no_prompt, run.recipe
    boxes = [None if alone else case_boxes(case, recipe.box_mode, recipe.jitter_1024, seed=0) for case in cases]

    def mask_of(model: Segmenter, case: Case, box: np.ndarray | None) -> np.ndarray:
        masks, _ = found_alone(model, case) if box is None else model.predict_case(case, box)
        return np.logical_or.reduce(masks)

    asked = list(zip(cases, boxes, strict=True))
    before, after = ([mask_of(model, case, box) for case, box in asked] for model in (run.zero_shot, run.tuned))
    note = f"{run.dataset.name}: largest loss, median and largest gain of {len(order)}, prompt {run.figures['prompt']}"
    return plotting.before_after(cases, boxes, before, after, note)
