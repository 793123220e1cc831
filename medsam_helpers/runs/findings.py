"""What a table of scores says, in plain sentences: the gain, what it leaves open, the worst image."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from medsam_helpers.data.case import set_of
from medsam_helpers.errors import ConfigError, check_known, some
from medsam_helpers.evaluation.intervals import FEWEST, Interval, Method, mean_interval
from medsam_helpers.evaluation.predictors import BASELINES, WITH_TTA
from medsam_helpers.evaluation.tables import GROUP, clicks_needed, groups_in, paired_gain

SMALL = 30  # below so many images the coverage is told beside the interval
COVERAGE = {
    "logit-t": {5: 0.88, 8: 0.87, 15: 0.87, 27: 0.88, 60: 0.91},
    "t": {5: 0.91, 8: 0.91, 15: 0.90, 27: 0.89, 60: 0.91},
}
"""How often a 95 % interval holds the true mean, by number of images: `logit-t` of a mean Dice, `t` of a paired gain.

Source: `benchmarks/interval_coverage.py`, on the recorded scores of polyps and of breast ultrasound.
"""
UNSEEN = "No interval sees a failure that was not sampled."


def model_in_question(table: pd.DataFrame) -> str:
    """The model that a table is about: "tuned", else the only one that is no baseline; `ConfigError`: there is none."""
    models = [str(model) for model in table["model"].unique() if model not in BASELINES]
    if "tuned" in models or len(models) == 1:
        return "tuned" if "tuned" in models else models[0]
    raise ConfigError(f"which model? These scores are of {', '.join(models) or 'the baselines only'}")


def findings(
    table: pd.DataFrame, prompt: str | None = None, model: str | None = None, base: str | None = None
) -> list[str]:
    """Sentences on one model of a table of scores.

    They say: the paired gain over the base and whether its interval holds zero; whether filling the ellipse in the box
    is better; how often an interval of so few images holds the true mean; the worst image; what no interval sees; how
    many clicks it needs; where the table's `attrs` know it, which boxes missed, and what it finds in images without a
    lesion.

    Args:
        table: as `evaluate` gives it.
        prompt: one of the table's prompts; default: each of them, of clicks the last.
        model: default: see `model_in_question`.
        base: what the gain is over; default: "zero-shot with tta" (then `model` is taken to use it too), "zero-shot",
            or no gain where the table has neither.
    Raises:
        ConfigError: no such model or prompt.
        DataError: a case was scored for one of the two only.
    """
    model = model or model_in_question(table)
    check_known("model", model, table["model"])
    known = set(table["model"]) - {model}
    base = base or next((name for name in (f"zero-shot{WITH_TTA}", "zero-shot") if name in known), None)
    said: list[str] = []
    prompts = list(table.loc[table["model"] == model, "prompt"].unique()) if prompt is None else [prompt]
    clicks = [one for one in prompts if one.startswith("clicks:")]
    for one in prompts:
        check_known("prompt", one, table["prompt"])
        if one not in clicks[:-1]:
            said += _findings_of(table[table["prompt"] == one], one, model, base)
    if clicks and prompt is None:
        said.append(_clicks_text(table, model, len(clicks)))
    if boxed := table.attrs.get("boxed", ()):
        said.append(f"With the prompt none {', '.join(boxed)}, which needs one, was given a box round the image.")
    if missed := table.attrs.get("missed"):
        said.append(f"{len(missed)} of the boxes miss their lesion, and count: {some(missed)}.")
    if apart := table.attrs.get("without_lesion"):
        said.append(f"Images without a lesion, which no box can be drawn round: {apart}, neither trained on nor above.")
    if normal := table.attrs.get("normal"):
        painted = f"{table.attrs['false_positives']} of {normal} images without a lesion"
        share = 100 * table.attrs["false_positive_share"]
        asked = "With such a box" if model in boxed else "Without a prompt"
        said.append(f"{asked} {model} finds something in {painted}, on average {share:.1f} % of their area.")
    return list(dict.fromkeys(reversed(said)))[::-1]  # what holds for every prompt once, the last time


def _findings_of(rows: pd.DataFrame, prompt: str, model: str, base: str | None) -> Iterator[str]:
    by_case = rows[rows["model"] == model].groupby("case")["dice"].mean()
    if base:
        gain = paired_gain(rows, prompt, model, base)
        told = f"Gain of {model} over {base}, prompt {prompt}: {gain_text(gain, len(by_case))}."
        zero = f" The interval holds zero: these images do not show whether {model} or {base} is better."
        alike = gain.low == gain.high == 0  # training kept the weights that it began with, say
        yield told + (" Both have the same scores." if alike else zero * bool(gain.low <= 0 <= gain.high))
        for name, part in rows.groupby(rows["case"].map(set_of)):
            if name:  # of several data sets
                gain, own = paired_gain(part, prompt, model, base), by_case[by_case.index.map(set_of) == name]
                yield f"On {name} alone, prompt {prompt}: Dice {own.mean():.3f}, gain {gain_text(gain, len(own))}."
    ellipse = rows.loc[rows["model"] == "ellipse", "dice"].mean()
    if ellipse > by_case.mean():  # NaN, where it was not scored, is not
        better = f"Dice {ellipse:.3f} against {by_case.mean():.3f}"
        place = "image" if prompt == "none" else "square about the click" if prompt.startswith("clicks") else "box"
        yield f"Filling the ellipse in the {place} beats {model}, prompt {prompt}: {better}."
    if GROUP in rows:
        yield f"The intervals take the {rows[GROUP].nunique()} groups (patients, videos) as drawn, not single images."
    if note := coverage_note(len(by_case)):
        yield f"Mean Dice over {len(by_case)} images: {note}."
    yield f"Worst image of {model}, prompt {prompt}: {by_case.idxmin()}, Dice {by_case.min():.3f}."
    yield UNSEEN


def _clicks_text(table: pd.DataFrame, model: str, most: int) -> str:
    found, n = click_figures(table, model), table.loc[table["model"] == model, "case"].nunique()
    mean = Interval(found["clicks_to_90"], *(np.nan if end is None else end for end in found["clicks_to_90_ci95"]))
    told = f"{model} needs {mean.text('.2f')} clicks to Dice 0.90, {found['clicks_to_90_iou']:.2f} to IoU 0.90"
    return f"{told}; images that do not get there, {found['click_failures']} of {n} for Dice, count as {most}."


def gain_text(gain: Interval, n: int) -> str:
    """A paired gain over n images, with its interval and how often one of so few holds the true gain.

    >>> gain_text(Interval(0.02, -0.01, 0.05), 8)
    '+0.020 [-0.010, +0.050] (95 %, 8 images; from so few an interval holds the true value about 91 times in 100)'
    """
    if not np.isfinite(gain.low):
        return gain.text("+.3f")
    return f"{gain.text('+.3f')} (95 %, {'; '.join(filter(None, (f'{n} images', coverage_note(n, 't'))))})"


def coverage_note(n: int, method: Method = "logit-t") -> str:
    """What stands beside an interval of n images: how often one of so few holds the true mean; empty for 30 and more.

    >>> coverage_note(8), coverage_note(3), coverage_note(100)
    ('from so few an interval holds the true value about 87 times in 100', 'no interval below 5 images', '')
    """
    if n < FEWEST:
        return f"no interval below {FEWEST} images"
    known = COVERAGE.get(method)
    if not known or n >= SMALL:
        return ""
    share = 100 * known[max(size for size in known if size <= n)]
    return f"from so few an interval holds the true value about {share:.0f} times in 100"


def click_figures(table: pd.DataFrame, model: str) -> dict[str, Any]:
    """For a card: mean Dice after each click, and the mean clicks to Dice 0.90, with its interval, and to IoU 0.90.

    Keys `dice_by_click`, `clicks_to_90`, `clicks_to_90_ci95` and `clicks_to_90_iou`; `click_failures` counts the cases
    that never reach the Dice and so count as the most clicks. Arguments and errors as for `clicks_needed`.
    """
    needed = clicks_needed(table, model)
    rows = table[(table["model"] == model) & table["prompt"].str.startswith("clicks:")]
    mean, *ends = mean_interval(needed, "t", groups=groups_in(table, needed.index)).for_json()
    return {
        "dice_by_click": rows.groupby("prompt", sort=False)["dice"].mean().round(6).tolist(),
        "clicks_to_90": mean,
        "clicks_to_90_ci95": ends,
        "clicks_to_90_iou": round(float(clicks_needed(table, model, "iou").mean()), 6),
        "click_failures": int((rows.groupby("case")["dice"].max() < 0.9).sum()),
    }
