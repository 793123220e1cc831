"""What tracking costs: seconds of a fine-tuning run with MLflow over those without, the rest being equal.

The server runs beside it, on the same processors. Runs with and without take turns, in the order A B B A, so that a
machine that slows down slows both. Prints one JSON line; `overhead` should stay below 0.03.
"""

# make bench: --pairs 2

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from medsam_helpers.data.loading import load_data
from medsam_helpers.device import default_device
from medsam_helpers.mlops.server import Server
from medsam_helpers.mlops.tracking import RunTracker
from medsam_helpers.runs.embed import embed_cases, keep_freed_memory
from medsam_helpers.sam.embeddings import EmbeddingStore
from medsam_helpers.sam.loading import load_sam
from medsam_helpers.sam.segmenter import Segmenter
from medsam_helpers.training.loop import fit
from medsam_helpers.training.recipes import get_recipe


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=4, help="of runs; default: 4")
    parser.add_argument("--images", type=int, default=32, help="to train on; default: 32")
    parser.add_argument("--epochs", type=int, default=3, help="default: 3, a trial of a sweep")
    parser.add_argument("--model", default="mobile-sam")
    args = parser.parse_args()
    data = load_data("phantom-ultrasound", train_limit=args.images, dev_limit=4, val_limit=0)
    recipe = get_recipe("quick").but(epochs=args.epochs)
    keep_freed_memory()
    segmenter = Segmenter(load_sam(args.model), precision=recipe.precision)
    segmenter.store = EmbeddingStore.for_model(segmenter.info, segmenter.precision)
    for cases in (data.train, data.dev):
        embed_cases(segmenter, cases, show_progress=False)

    with tempfile.TemporaryDirectory() as temporary, Server(Path(temporary, "server")) as server:

        def seconds(folder: Path, tracked: bool) -> float:
            model = copy.deepcopy(segmenter.model)
            options = {"show_progress": False}
            began = time.perf_counter()
            if not tracked:
                fit(model, data.train, data.dev, recipe, segmenter.store, folder, **options)
            else:
                # Whole runs: from the first record to the last one delivered.
                with RunTracker(folder, "overhead", uri=server.uri) as tracker:
                    tracker.log_data(data)
                    fit(model, data.train, data.dev, recipe, segmenter.store, folder, log_with=tracker, **options)
            return time.perf_counter() - began

        seconds(Path(temporary, "warm-up"), True)
        spent: dict[bool, list[float]] = {False: [], True: []}
        for pair in range(args.pairs):
            for tracked in (False, True) if pair % 2 == 0 else (True, False):
                spent[tracked].append(seconds(Path(temporary, f"{pair}-{tracked}"), tracked))
    plain, with_tracking = (statistics.median(spent[tracked]) for tracked in (False, True))
    result = {
        "overhead": round(with_tracking / plain - 1, 4),
        "overhead_of_the_fastest": round(min(spent[True]) / min(spent[False]) - 1, 4),
        "seconds_plain": [round(value, 2) for value in spent[False]],
        "seconds_tracked": [round(value, 2) for value in spent[True]],
        "n": args.images,
        "epochs": args.epochs,
        "model": args.model,
        "device": str(default_device()),
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
