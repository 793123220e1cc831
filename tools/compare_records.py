"""Does a record come again? Runs of an experiment on another machine beside the recorded ones, image by image.

    medsam reproduce specialist --data ... --output runs/again/specialist
    python tools/compare_records.py specialist --again runs/again --output DIR [--clock specialist=3453]

Writes DIR/summary.csv, a row for each run and data set it was scored on, and DIR/run_card.json. The difference is again
minus recorded on the same images, with its 95 % bootstrap interval: what another machine, another precision and another
order of additions do to a result, where code, data, seed and prompts are the same.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from medsam_helpers.errors import DataError, MedsamError
from medsam_helpers.evaluation.predictors import BASELINES
from medsam_helpers.files import atomic_write
from medsam_helpers.runs.card import write_run_card
from medsam_helpers.runs.experiments import RESULTS
from medsam_helpers.runs.recorded import recorded_gain, runs_as_models


def compare(name: str, recorded: Path, again: Path, prompt: str = "j20") -> list[dict[str, Any]]:
    """A row for each run of an experiment and data set it was scored on; the fills, which no machine changes, left out.

    Args:
        name: of the experiment.
        recorded: folder of its record.
        again: folder of the record to compare with it.
        prompt: of the scores.
    Raises:
        DataError: no record in a folder, or a run is in one of the two only.
    """
    rows = []
    sets = pd.read_csv(recorded / "metrics.csv", usecols=["tested_on"])["tested_on"].unique()
    for tested_on in sets:
        one, other = runs_as_models(recorded, tested_on), runs_as_models(again, tested_on)
        models = [model for model in one["model"].unique() if model not in BASELINES]
        if alone := set(models) ^ set(other["model"].unique()) - set(BASELINES):
            raise DataError(f"{name}: {', '.join(sorted(alone))} on {tested_on} is in one of the two records only")
        for model in models:
            pair = [table[table["model"] == model].assign(model=label) for label, table in (("1", one), ("2", other))]
            both = pd.concat(pair)
            difference = recorded_gain(both, prompt, "2", "1")
            means = both[both["prompt"] == prompt].groupby("model")["dice"].mean()
            figures = {"recorded": means["1"], "again": means["2"], "difference": difference.mean}
            figures |= {"low": difference.low, "high": difference.high}
            rows.append({"experiment": name, "run": model, "tested_on": tested_on, "prompt": prompt, **figures})
    return rows


def about(folder: Path) -> dict[str, Any]:
    """Data, machine, precision and seconds of a record, from its run card."""
    card = json.loads((folder / "run_card.json").read_text(encoding="utf-8"))
    machines = {f"{run['machine']['cpu']}, threads: {run['machine']['torch_threads']}" for run in card["runs"]}
    precisions = sorted({run["precision"] for run in card["runs"]})
    seconds = sum(run["seconds"] for run in card["runs"])
    made_with = {"machines": sorted(machines), "precision": precisions, "seconds": round(seconds)}
    return {"commit": card["commit"], "data_digest": card["data_digest"], **made_with}


def clock(text: str) -> tuple[str, int]:
    """Name and seconds of "NAME=SECONDS"."""
    name, seconds = text.split("=")
    return name, int(seconds)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", metavar="NAME", help="experiments, as `medsam reproduce --list` gives them")
    parser.add_argument("--again", required=True, type=Path, help="folder with a folder NAME of each, to compare")
    parser.add_argument("--output", required=True, type=Path, help="folder for summary.csv and run_card.json")
    parser.add_argument(
        "--clock", nargs="*", type=clock, default=[], metavar="NAME=SECONDS", help="by a clock on the wall"
    )
    options = parser.parse_args()
    try:
        rows = [row for name in options.names for row in compare(name, RESULTS / name, options.again / name)]
        cards = {
            name: {"recorded": about(RESULTS / name), "again": about(options.again / name)} for name in options.names
        }
        if other := [name for name, both in cards.items() if len({card["data_digest"] for card in both.values()}) > 1]:
            raise DataError(f"{', '.join(other)}: the two records were made on different images")
    except (MedsamError, OSError, ValueError, KeyError) as error:
        sys.exit(f"compare_records: {error}")
    table = pd.DataFrame(rows)
    with atomic_write(options.output / "summary.csv") as temporary:
        table.to_csv(temporary, index=False, float_format="%.6f", lineterminator="\n")
    write_run_card(
        options.output / "run_card.json",
        command=["python", *sys.argv],
        data_digest=" ".join(card["recorded"]["data_digest"] for card in cards.values()),
        seconds=sum(seconds for _, seconds in options.clock),
        clock_seconds=dict(options.clock),
        records=cards,
    )
    print(table.drop(columns=["experiment", "prompt"]).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
