"""What there is in a data set: size, lesion area, position and brightness of every case, and what the audit finds.

    python benchmarks/describe_data.py --data FOLDER --output DIR

Writes DIR/cases.csv (see `medsam_helpers.figures.data`), DIR/findings.csv (the audit's errors and warnings) and
DIR/run_card.json, which counts the audit's notes too; the last line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import pandas as pd

from medsam_helpers.data.audit import audit
from medsam_helpers.data.loading import load_data
from medsam_helpers.errors import MedsamError
from medsam_helpers.figures.data import describe
from medsam_helpers.files import atomic_write
from medsam_helpers.runs.card import write_run_card


def write(table: pd.DataFrame, path: Path) -> None:
    """The table as CSV, four decimals."""
    with atomic_write(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.4f", lineterminator="\n")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="a folder with images/ and masks/, or a source's name")
    parser.add_argument("--output", required=True, type=Path, help="folder for the tables and run_card.json")
    options = parser.parse_args()
    start = time.perf_counter()
    try:
        dataset = load_data(options.data)
        cases, digest = describe(dataset), dataset.digest
        found = audit(options.data if Path(options.data).is_dir() else dataset).table
    except MedsamError as error:
        sys.exit(f"describe_data: {error}")
    write(cases.sort_values("case"), options.output / "cases.csv")
    write(found[found.severity != "note"], options.output / "findings.csv")
    figures = {
        "n": len(cases),
        "findings": found.problem.value_counts().to_dict(),
        "square": int((cases.height == cases.width).sum()),
        "lesion_share_median": round(cases.lesion_share.median(), 4),
    }
    seconds = time.perf_counter() - start
    write_run_card(
        options.output / "run_card.json", command=["python", *sys.argv], data_digest=digest, seconds=seconds, **figures
    )
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
