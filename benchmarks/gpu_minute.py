"""Whether the guide's run fits a minute on a GPU: all of `finetune`, from files to scores, on Kvasir-SEG.

    python benchmarks/gpu_minute.py --data FOLDER

Prints one JSON line. The exit status is 1 above 60 seconds, or where the tuned Dice leaves the recorded one by more
than 0.010. The first run on a machine encodes; a second one with the same cache would not, so the cache is a new one.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch

from medsam_helpers import RunConfig
from medsam_helpers.device import default_device
from medsam_helpers.runs.card import git_commit
from medsam_helpers.runs.experiments import RESULTS
from medsam_helpers.runs.finetune import finetune

SECONDS, DICE = 60, 0.010


def main() -> int:
    """Run, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="kvasir")
    parser.add_argument("--model", default="mobile-sam")
    parser.add_argument("--epochs", type=int, default=30)
    args = parser.parse_args()
    recorded = pd.read_csv(RESULTS / "kvasir-official" / "summary.csv").iloc[0]["tuned_j20"]
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MEDSAM_CACHE"] = folder
        config = RunConfig(data=args.data, model=args.model, recipe="best", change={"epochs": args.epochs})
        run = finetune(config, Path(folder) / "run", show_progress=False)
    seconds, figures = time.perf_counter() - started, run.figures
    device = default_device()
    result = {
        "seconds": round(seconds, 1),
        "seconds_encode": figures["seconds_encode"],
        "seconds_train": figures["seconds_train"],
        "seconds_else": round(seconds - figures["seconds_encode"] - figures["seconds_train"], 1),
        "images": {name: figures[f"n_{name}"] for name in ("train", "dev", "val")},
        "encoded": figures["encoded"],
        "epochs": args.epochs,
        "precision": figures["precision"],
        "peak_gpu_mb": figures.get("peak_gpu_mb"),
        "own_memory_mb": figures["own_memory_mb"],
        "tuned_dice": figures["tuned_dice"],
        "recorded_dice": round(float(recorded), 6),
        "gain": [figures["gain"], *figures["gain_ci95"]],
        "device": torch.cuda.get_device_name() if device.type == "cuda" else str(device),
        "commit": git_commit(),
    }
    print(json.dumps(result))
    return int(seconds > SECONDS or abs(figures["tuned_dice"] - recorded) > DICE)


if __name__ == "__main__":
    sys.exit(main())
