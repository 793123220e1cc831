"""Writes RESULTS.md and the table of README.md from the records: every number is computed, none typed.

    python tools/results.py [--check]

The text stands in tools/RESULTS.md.jinja. It asks for a number by the model's name, "RECORD: MODEL": a folder of
notebooks/results, and a run in it, or "box", "ellipse", "NAME zero-shot", "NAME zero-shot with tta". "#1" after a run
picks a seed; without it seeds and folds are averaged by image first.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from medsam_helpers.evaluation.intervals import Interval
from medsam_helpers.evaluation.predictors import WITH_TTA
from medsam_helpers.evaluation.tables import clicks_needed
from medsam_helpers.runs.recorded import bootstrap_mean

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "notebooks" / "results"
TEMPLATE = Path(__file__).with_name("RESULTS.md.jinja")
BEGIN = "<!-- Written by tools/results.py, from RESULTS.md: -->"
END = "<!-- to here. -->"


@cache
def table(record: str, file: str = "metrics.csv") -> pd.DataFrame:
    """A table of a record; that of the scores with a column `name`, see above. A single fine-tune's run is "tuned"."""
    found = pd.read_csv(RESULTS / record / file)
    if file != "metrics.csv" or "model" not in found:
        return found
    if "run" not in found:
        found = found.assign(run="tuned", train_seed=0, tested_on="kvasir", base="mobile-sam")
    base = found["base"].str.partition(WITH_TTA)
    name = found["model"].where(found["model"] != "zero-shot", base[0] + " zero-shot" + base[1])
    return found.assign(name=name.where(name != "tuned", found["run"]))


def card(record: str, file: str = "run_card.json") -> dict[str, Any]:
    """The run card of a record, or another JSON file of it."""
    return json.loads((RESULTS / record / file).read_text(encoding="utf-8"))


def by_case(model: str, prompt: str, metric: str, on: str) -> pd.Series:
    """The scores of a model, an image each."""
    record, name = model.split(": ", 1)
    name, _, seed = name.partition(" #")
    scores = table(record)
    rows = scores[(scores["name"] == name) & (scores["prompt"] == prompt) & (scores["tested_on"] == on)]
    rows = rows[rows["train_seed"] == int(seed)] if seed else rows
    if rows.empty:
        raise KeyError(f"nothing of {model!r}, prompt {prompt}, on {on}")
    return rows.groupby("case")[metric].mean()


def dice(model: str, prompt: str = "j20", metric: str = "dice", on: str = "kvasir") -> str:
    """A mean over images; the distance with two decimals."""
    return f"{by_case(model, prompt, metric, on).mean():.{2 if metric == 'hd95_percent' else 3}f}"


def gain(
    model: str, base: str, prompt: str = "j20", metric: str = "dice", on: str = "kvasir", base_on: str = ""
) -> str:
    """Model minus base on the model's images, the base's own test set if `base_on`; with the records' 95 % interval."""
    scores = by_case(model, prompt, metric, on)
    difference = scores - by_case(base, prompt, metric, base_on or on)[scores.index]
    return bootstrap_mean(difference.to_numpy()).text("+.3f")


def clicks(model: str, on: str = "kvasir") -> str:
    """Mean clicks to Dice 0.90, an image that does not get there counted as the most; over seeds and folds at once."""
    record, name = model.split(": ", 1)
    scores = table(record)
    rows = scores[(scores["name"] == name) & (scores["tested_on"] == on)]
    return f"{clicks_needed(rows.assign(model=name), name).mean():.2f}"


def run(record: str, name: str, on: str = "kvasir", seed: int = 0) -> pd.Series:
    """A row of a record's summary."""
    rows = table(record, "summary.csv")
    (found,) = (row for _, row in rows.iterrows() if (row["run"], row["tested_on"], row["seed"]) == (name, on, seed))
    return found


def recorded_gain(record: str, name: str, seed: int = 0) -> str:
    """The gain of a run over its own zero-shot model, as its summary has it."""
    row = run(record, name, seed=seed)
    return Interval(row["gain"], row["gain_low"], row["gain_high"]).text("+.3f")


def epochs(record: str, name: str) -> int:
    """How many epochs a run took."""
    history = table(record, "history.csv")
    return int(history.loc[history["run"] == name, "epoch"].max())


def seconds_an_image(record: str, name: str) -> float:
    """Training time of a run, by image and epoch."""
    row = run(record, name)
    return row["seconds_train"] / row["n_train"] / epochs(record, name)


def minutes(seconds: float) -> str:
    """58 minutes, 2 h 11 min."""
    whole = round(seconds / 60)
    return f"{whole} minutes" if whole < 90 else f"{whole // 60} h {whole % 60} min"


def several_lesions(record: str, name: str) -> dict[str, Any]:
    """Scores of the images with one lesion and of those with several, and the latter's share of all that is missing."""
    lesions = pd.read_csv(RESULTS / "describe-kvasir" / "cases.csv").set_index("case")["lesions"]
    scores = by_case(f"{record}: {name}", "j20", "dice", "kvasir")
    several = lesions.reindex(scores.index) > 1
    missing = 1 - scores
    share = missing[several].sum() / missing.sum()
    parts = {"one": scores[~several], "several": scores[several]}
    return {"n": int(several.sum()), "of": len(scores), "share": share, **parts}


def written() -> dict[Path, str]:
    """Both files as they should be."""
    names = (table, card, dice, gain, clicks, run, recorded_gain, epochs, seconds_an_image, minutes, several_lesions)
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, trim_blocks=True)
    environment.globals |= {function.__name__: function for function in names}
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    headline = "".join(template.blocks["headline"](template.new_context())).strip()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    readme = re.sub(f"(?s)(?<={re.escape(BEGIN)}\n).*(?={re.escape(END)})", lambda _: f"\n{headline}\n\n", readme)
    return {ROOT / "RESULTS.md": template.render(), ROOT / "README.md": readme}


def main() -> int:
    """Command line: the exit status is 1 where `--check` finds a file that is not what the records say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, and say which file is out of date")
    only_check = parser.parse_args().check
    texts = written()
    old = [path for path, text in texts.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path, text in texts.items():
        if path in old and not only_check:
            path.write_text(text, encoding="utf-8")
        print(f"{path.name}: {'as the records say' if path not in old else 'out of date' if only_check else 'written'}")
    return int(only_check and bool(old))


if __name__ == "__main__":
    sys.exit(main())
