"""Several processes: each sees its own part of the data, and together they end in the weights of one."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from helpers import draw_discs, embedded, make_tiny_sam
from safetensors.torch import load_file

from medsam_helpers.data.case import Dataset
from medsam_helpers.phantoms.dataset import save_folder
from medsam_helpers.runs.finetune import finetune
from medsam_helpers.runs.settings import RunConfig
from medsam_helpers.sam.embeddings import EmbeddingStore
from medsam_helpers.sam.tuned import DECODER_FILE
from medsam_helpers.training.loop import fit
from medsam_helpers.training.recipes import Recipe
from medsam_helpers.training.state import STATE_FILE

CASES = draw_discs(11)
TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc_per_node={}")
# `--cpu` would look for MPI. Without a GPU this does what it does with some, on the CPU.
ACCELERATE = ("accelerate.commands.launch", "--multi_gpu", "--num_processes={}", "--main_process_port=0")
# 7 cases: the last batch of 4 has 3, the last step of 2 x 2 has one batch of 2 and one of 1; of 2 cases, three processes
# leave one without any.
RECIPES = [
    Recipe(name="short last batch", epochs=2, batch=4, lr=1e-3, precision="fp32"),
    Recipe(name="accumulated", epochs=2, batch=2, accumulation=2, lr=1e-3, precision="fp32", ema_decay=0.5),
]


class Noted(EmbeddingStore):
    """A store that notes what is looked up in it."""

    def __getitem__(self, digest):
        self.looked_up = [*getattr(self, "looked_up", []), digest]
        return super().__getitem__(digest)


def train_all(root):
    """What one process of several does: each recipe, and a note of what it saw."""
    noted = {}
    for recipe in RECIPES:
        store = embedded(make_tiny_sam(), CASES, root / "embeddings").store
        store = Noted(store.folder, store.key)
        options = {"show_progress": False}
        result = fit(make_tiny_sam(), CASES[:7], CASES[7:], recipe, store, root / recipe.name, **options)
        noted[recipe.name] = store.looked_up, list(result.history["dev_dice"]), list(result.history["loss"][1:])
    return noted


def launch(launcher, count, root, body):
    """Run the body in so many processes on the CPU; it knows `root`, and `rank`."""
    script = root / "script.py"
    lines = ["import json, os, signal, sys", "from pathlib import Path", f"sys.path[:0] = [{str(Path(__file__).parent)!r}]"]
    lines += [f"sys.path[:0] = [{str(Path(__file__).parents[1])!r}]", f"root, rank = Path({str(root)!r}), os.environ['RANK']"]
    script.write_text("\n".join([*lines, body]), encoding="utf-8")
    command = [sys.executable, "-m", *(word.format(count) for word in launcher), str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "count"), [(TORCHRUN, 2), (TORCHRUN, 3), (ACCELERATE, 2)])
def test_processes_that_see_different_data_end_in_the_weights_of_one(tmp_path, launcher, count):
    body = "from test_processes import train_all\n(root / f'seen-{rank}.json').write_text(json.dumps(train_all(root)))"
    done = launch(launcher, count, tmp_path, body)
    assert done.returncode == 0, done.stderr[-3000:]
    alone = train_all(tmp_path / "alone")
    seen = [json.loads((tmp_path / f"seen-{rank}.json").read_text()) for rank in range(count)]
    start = make_tiny_sam().state_dict()
    for recipe in RECIPES:
        parts = [set(one[recipe.name][0]) for one in seen]
        assert set.union(*parts) == {case.image_digest for case in CASES}
        assert all(len(part) < len(CASES) for part in parts), "none saw all"
        for lookups, *curves in (one[recipe.name] for one in seen):
            assert curves == [pytest.approx(curve, abs=1e-5) for curve in alone[recipe.name][1:]]
        whole, shared = (load_file(root / recipe.name / STATE_FILE) for root in (tmp_path / "alone", tmp_path))
        assert max((whole[f"current/{name}"] - start[name]).abs().max() for name in ("mask_decoder.iou_token.weight",)) > 1e-3
        torch.testing.assert_close(shared, whole, atol=1e-5, rtol=0)
