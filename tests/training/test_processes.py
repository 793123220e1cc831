"""Several processes: each sees its own part of the data, and together they end in the weights of one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from helpers import draw_discs, embedded, make_tiny_sam, save_images
from safetensors.torch import load_file

from medsam_helpers.runs.finetune import get_or_train
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
SHORT = Recipe(name="short last batch", epochs=2, batch=4, lr=1e-3, precision="fp32")
# Of 7 cases the last batch of 4 has 3, the last step of 2 x 2 a batch of 2 and one of 1, of which most have none.
RECIPES = [
    SHORT,
    SHORT.but(name="corrected", prompts=("box", "point"), rounds=2),
    SHORT.but(name="accumulated", batch=2, accumulation=2, ema_decay=0.5),
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
    script, tests = root / "script.py", [str(Path(__file__).parents[level]) for level in (0, 1)]
    head = "import json, os, signal, sys\nfrom pathlib import Path\n"
    head += f"sys.path[:0] = {tests}\nroot = Path({str(root)!r})\n"
    script.write_text(head + 'rank = int(os.environ["RANK"])\n' + body, encoding="utf-8")
    command = [sys.executable, "-m", *(word.format(count) for word in launcher), str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


TOGETHER = """
from medsam_helpers.errors import ConfigError
from medsam_helpers.training.processes import check_shared
from test_processes import train_all
check_shared(root / "shared")
try:
    check_shared(root / f"of {rank}")
except ConfigError as error:
    (root / f"told-{rank}").write_text(str(error))
(root / f"seen-{rank}.json").write_text(json.dumps(train_all(root)))
"""


@pytest.fixture(scope="module", params=[(ACCELERATE, 2), (TORCHRUN, 3)], ids=["accelerate", "torchrun"])
def together(request, tmp_path_factory):
    """The folder that several processes worked in, and how many they were."""
    root, (launcher, count) = tmp_path_factory.mktemp("together"), request.param
    done = launch(launcher, count, root, TOGETHER)
    assert done.returncode == 0, done.stderr[-3000:]
    return root, count


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folder that one process worked in, and what it noted."""
    root = tmp_path_factory.mktemp("alone")
    return root, train_all(root)


@pytest.mark.slow
def test_processes_that_see_different_data_end_in_the_weights_of_one(together, alone):
    (place, count), (own_place, expected) = together, alone
    seen = [json.loads((place / f"seen-{rank}.json").read_text()) for rank in range(count)]
    start = make_tiny_sam().mask_decoder.iou_token.weight
    for recipe in RECIPES:
        parts = [set(one[recipe.name][0]) for one in seen]
        assert set.union(*parts) == {case.image_digest for case in CASES}
        assert all(len(part) < len(CASES) for part in parts), "none saw all"
        for one in seen:
            curves = [pytest.approx(curve, abs=1e-5) for curve in expected[recipe.name][1:]]
            assert one[recipe.name][1:] == curves
        whole, shared = (load_file(root / recipe.name / STATE_FILE) for root in (own_place, place))
        moved = whole["current/mask_decoder.iou_token.weight"] - start
        assert moved.abs().max() > 1e-3, "far more than the tolerance"
        torch.testing.assert_close(shared, whole, atol=1e-5, rtol=0)


WHOLE_RUN = """
from medsam_helpers.sam.embeddings import EmbeddingStore
from test_processes import whole_run
seen, look_up = [], EmbeddingStore.__getitem__

def noted(self, digest):
    seen.append(digest)
    if rank == 1 and len(seen) == {kill_at}:
        signal.raise_signal(signal.SIGKILL)
    return look_up(self, digest)

EmbeddingStore.__getitem__ = noted
whole_run(root)
"""


def whole_run(root):
    """A run from images to scores, in the cache's folder for it, as `get_or_train` and `reproduce` do it."""
    change = {"epochs": 3, "views": ("as-is", "mirrored"), "precision": "fp32", "lr": 1e-3}
    config = RunConfig(model=str(root / "tiny"), data=str(root / "discs"), change=change)
    return get_or_train(config, show_progress=False)


@pytest.mark.slow
def test_a_whole_run_of_three_goes_on_as_two_after_a_kill_and_ends_as_one_would(tmp_path, monkeypatch):
    make_tiny_sam().save_pretrained(tmp_path / "tiny")
    save_images(CASES, tmp_path / "discs", n_train=8)
    monkeypatch.setenv("MEDSAM_CACHE", str(tmp_path / "shared"))
    killed = launch(TORCHRUN, 3, tmp_path, WHOLE_RUN.format(kill_at=5))
    assert killed.returncode != 0
    (state,) = (tmp_path / "shared" / "runs").glob(f"*/{STATE_FILE}")
    assert not (state.parent / "README.md").exists()
    done = launch(TORCHRUN, 2, tmp_path, WHOLE_RUN.format(kill_at=-1))
    assert done.returncode == 0, done.stderr[-3000:]
    monkeypatch.setenv("MEDSAM_CACHE", str(tmp_path / "alone"))
    folder = whole_run(tmp_path)
    card, expected = (json.loads((place / "run_card.json").read_text()) for place in (state.parent, folder))
    assert card["metrics"]["encoded"] == 0, "the three had encoded all"
    assert (card["sizes"], card["data_digest"]) == (expected["sizes"], expected["data_digest"])
    one, several = (pd.read_csv(place / "metrics.csv") for place in (folder, state.parent))
    pd.testing.assert_frame_equal(several, one, atol=1e-3, check_exact=False)
    found, whole = (load_file(place / DECODER_FILE) for place in (state.parent, folder))
    torch.testing.assert_close(found, whole, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_a_folder_that_another_process_does_not_see_is_refused(together):
    place, count = together
    for rank in range(count):
        assert "not every process sees this folder" in (place / f"told-{rank}").read_text()
    assert not list((place / "shared").iterdir())
