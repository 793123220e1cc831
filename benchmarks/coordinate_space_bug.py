"""What stretching costs: the Dice of a *perfect* mask on its way through the transforms, three ways.

`ours`: reference -> padded mask space -> logits -> original size, against the reference.
`public_training_target`: the perfect mask in the padded space against a reference that was resized straight to
256 x 256, as the public fine-tuning notebooks prepare it.
`public_inference`: the padded 256 x 256 map thresholded and stretched to the image, against the reference.

    python benchmarks/coordinate_space_bug.py --data FOLDER --output DIR [--limit N]

Writes DIR/metrics.csv and DIR/run_card.json; the last line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from medsam_helpers.data.case import Case
from medsam_helpers.data.loading import load_data
from medsam_helpers.errors import MedsamError
from medsam_helpers.evaluation.metrics import dice
from medsam_helpers.files import atomic_write
from medsam_helpers.geometry import ImageTransform
from medsam_helpers.runs.card import write_run_card

WAYS = ["ours", "public_training_target", "public_inference"]


def stretch(mask: np.ndarray, hw: tuple[int, int]) -> np.ndarray:
    """The mask resized without regard to its proportions, nearest neighbour."""
    return np.asarray(Image.fromarray(mask).resize((hw[1], hw[0]), Image.Resampling.NEAREST))


def perfect_mask(case: Case) -> dict[str, str | int | float]:
    """One row: the perfect mask's Dice by each way."""
    transform = ImageTransform(case.size_hw)
    target = transform.mask_to_target(case.mask)
    padded = target.numpy() > 0.5
    back = transform.logits_to_original((target * 20 - 10)[None, None])[0, 0] > 0
    return {
        "case": case.name,
        "height": case.size_hw[0],
        "width": case.size_hw[1],
        "ours": dice(back.numpy(), case.mask),
        "public_training_target": dice(padded, stretch(case.mask, padded.shape)),
        "public_inference": dice(stretch(padded, case.size_hw), case.mask),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="a folder with images/ and masks/, or a source's name")
    parser.add_argument("--output", required=True, type=Path, help="folder for metrics.csv and run_card.json")
    parser.add_argument("--limit", type=int, help="first N validation images only")
    options = parser.parse_args()
    start = time.perf_counter()
    try:
        cases = load_data(options.data, train_limit=0, dev_limit=0, val_limit=options.limit).val
        table = pd.DataFrame([perfect_mask(case) for case in tqdm(cases, unit="case")]).sort_values("case")
        digest = cases.digest
    except MedsamError as error:
        sys.exit(f"coordinate_space_bug: {error}")
    with atomic_write(options.output / "metrics.csv") as temporary:
        table.to_csv(temporary, index=False, float_format="%.6f", lineterminator="\n")
    means = {f"{way}_mean": round(table[way].mean(), 4) for way in WAYS}
    medians = {f"{way}_median": round(table[way].median(), 4) for way in WAYS}
    figures = {"n": len(table), **means, **medians}
    write_run_card(
        options.output / "run_card.json",
        command=["python", *sys.argv],
        data_digest=digest,
        seconds=time.perf_counter() - start,
        **figures,
    )
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
