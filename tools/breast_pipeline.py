"""The pipeline of notebook 07 on real breast ultrasound, from the split to the gate; writes numbers, never pictures.

    python tools/breast_pipeline.py --data BUSI --output runs/breast-pipeline

BUSI is a folder with `images/` and `masks/` (Al-Dhabyani et al., Data in Brief 2020). The split is fixed by
`notebooks/results/breast-pipeline/split.csv`; without that file it is drawn, near-duplicates on one side, and written.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from mlflow import MlflowClient

from medsam_helpers.data.case import Dataset
from medsam_helpers.data.duplicates import near_duplicates, thumbnail
from medsam_helpers.data.loading import load_data
from medsam_helpers.evaluation.tables import summarise
from medsam_helpers.mlops.gate import judge
from medsam_helpers.mlops.pipeline import TRACKING_FOLDER, train_tracked
from medsam_helpers.mlops.registry import load_model, register
from medsam_helpers.mlops.server import Server
from medsam_helpers.mlops.sweeps import sweep
from medsam_helpers.mlops.trials import SweepPlan, best_recipe, trials_table
from medsam_helpers.runs.card import git_commit, write_run_card
from medsam_helpers.runs.recorded import read_table, write_table
from medsam_helpers.runs.settings import RunConfig

SPLIT = Path(__file__).parents[1] / "notebooks" / "results" / "breast-pipeline" / "split.csv"
SIZES = {"val": 27, "dev": 14}  # the rest is train


def draw_split(dataset: Dataset, seed: int = 0) -> dict[str, str]:
    """{name: split}, benign and malignant in equal shares of each split, near-duplicates together."""
    cases = [case for cases in (dataset.train, dataset.dev, dataset.val) for case in cases]
    cases.sort(key=lambda case: case.name)
    group = list(range(len(cases)))
    for first, second, _ in near_duplicates(np.array([thumbnail(case.image) for case in cases])):
        low, high = sorted((group[first], group[second]))
        group = [low if member == high else member for member in group]
    rng = np.random.default_rng(seed)
    split: dict[str, str] = {}
    for kind in ("benign", "malignant"):
        members = [index for index, case in enumerate(cases) if case.name.startswith(kind)]
        order = [g for g in rng.permutation(members) if group[g] == g]
        left = {name: round(size * len(members) / len(cases)) for name, size in SIZES.items()}
        for head in order:
            together = [index for index in members if group[index] == head]
            into = next((name for name, room in left.items() if room >= len(together)), "train")
            left[into] = left.get(into, 0) - len(together)
            split |= {cases[index].name: into for index in together}
    return split


def split_folder(data: Path, folder: Path) -> Path:
    """A data folder that links to the images and has the fixed split's lists."""
    if not SPLIT.exists():
        SPLIT.parent.mkdir(parents=True, exist_ok=True)
        drawn = draw_split(load_data(data))
        SPLIT.write_text("case,split\n" + "".join(f"{name},{drawn[name]}\n" for name in sorted(drawn)))
    rows = list(csv.DictReader(SPLIT.open()))
    place = folder / "busi"
    place.mkdir()
    for part in ("images", "masks"):
        os.symlink((data / part).resolve(), place / part)
    for split in ("train", "dev", "val"):
        names = [row["case"] for row in rows if row["split"] == split]
        (place / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    return place


def main() -> None:
    """Sweep, train the winner, evaluate, register, judge, load the champion back; write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("runs/breast-pipeline"))
    parser.add_argument("--model", default="mobile-sam")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=8, help="of the winner; the trials take 3")
    args = parser.parse_args()
    started, commit, output = time.perf_counter(), git_commit(), args.output.absolute()
    with tempfile.TemporaryDirectory() as temporary, Server(output / "server") as server:
        data = str(split_folder(args.data, Path(temporary)))
        # fp32 gives the same numbers on every processor.
        options = {"train_limit": 32, "epochs": 3, "trials": args.trials, "precision": "fp32"}
        plan = SweepPlan(args.model, data, **options, uri=server.uri)
        began = time.perf_counter()
        study = sweep(output / "sweep", plan, args.workers)
        seconds_sweep = time.perf_counter() - began
        recipe = best_recipe(study, epochs=args.epochs, precision="fp32")
        config = RunConfig(model=args.model, data=data, epochs=args.epochs)
        tracked = train_tracked(config, output / "winner", recipe=recipe, uri=server.uri, pictures=False)
        client = MlflowClient(server.uri)
        version = register(client, "medsam-breast", tracked.run_id, output / "winner")
        verdict = judge(client, "medsam-breast", tracked.run.dataset)
        case = tracked.run.dataset.val[0]
        boxes = np.array([[0, 0, *case.size_hw[::-1]]], float)
        same = np.array_equal(
            tracked.run.tuned.predict_case(case, boxes)[0],
            load_model(client, "medsam-breast", version.version).predict_case(case, boxes)[0],
        )
    results = SPLIT.parent
    trials_table(study).to_csv(results / "trials.csv", index=False)
    table = read_table(output / "winner" / TRACKING_FOLDER / "val" / "metrics.csv")
    write_table(table, results / "metrics.csv")
    (results / "history.csv").write_bytes((output / "winner" / "history.csv").read_bytes())
    card = write_run_card(
        results / "run_card.json",
        command=f"python tools/breast_pipeline.py --data {args.data} --output {args.output}",
        data_digest=tracked.run.dataset.digest,
        seconds=time.perf_counter() - started,
        commit=commit,
        base=args.model,
        recipe=recipe.as_dict(),
        data={"name": "BUSI, 99 images", "citation": "Al-Dhabyani et al., Data in Brief 28:104863, 2020"},
        sizes={split: len(getattr(tracked.run.dataset, split)) for split in ("train", "dev", "val")},
        sweep={"trials": len(study.trials), "workers": args.workers, "seconds": round(seconds_sweep, 1)}
        | {"best_dev_dice": study.best_value, "epochs": plan.epochs, "train_limit": plan.train_limit},
        metrics={f"dice, {row.model}, {row.prompt}": round(row.dice, 4) for row in summarise(table).itertuples()}
        | {key: tracked.run.figures[key] for key in ("best_epoch", "precision", "seconds_train")},
        gate=json.loads(verdict.as_json()),
        same_mask_from_the_registry=bool(same),
    )
    print(json.dumps({key: card[key] for key in ("sizes", "sweep", "gate", "seconds")}, indent=1))


if __name__ == "__main__":
    main()
