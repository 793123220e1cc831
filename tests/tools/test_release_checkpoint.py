"""Released decoders: half the size, the same masks, found by their name, with terms and limits on their card."""

import contextlib
import json
import shutil

import pytest
import torch
from helpers import draw_discs
from release_checkpoint import release
from safetensors.torch import load_file, save_file

from medsam_helpers import files
from medsam_helpers.errors import CheckpointError, ConfigError
from medsam_helpers.evaluation.metrics import dice
from medsam_helpers.evaluation.predictors import case_boxes
from medsam_helpers.runs.finetune import finetune
from medsam_helpers.runs.settings import RunConfig
from medsam_helpers.sam.segmenter import Segmenter
from medsam_helpers.training.recipes import get_recipe


@pytest.fixture(scope="module")
def place(place):
    """With a finished run on discs; its own names are those seen from there."""
    recipe = get_recipe("quick").but(epochs=3, lr=3e-3, loss="dice_bce", precision="fp32", batch=2)
    with contextlib.chdir(place):
        finetune(RunConfig(model="tiny", data="data"), place / "run", False, "medsam", recipe=recipe)
        yield place


@pytest.fixture
def run(place, tmp_path, monkeypatch):
    """The run for one test, and an empty folder in place of the checkout's `checkpoints/`."""
    monkeypatch.setattr(files, "RELEASED", tmp_path / "checkpoints")
    return shutil.copytree(place / "run", tmp_path / "run")


def test_half_precision_halves_the_file_and_keeps_the_masks(run, tmp_path):
    folder = release(run, "discs", "kvasir", tmp_path / "checkpoints")
    state = load_file(folder / "decoder.safetensors")
    assert {weight.dtype for weight in state.values()} == {torch.float16}
    sizes = [(place / "decoder.safetensors").stat().st_size for place in (folder, run)]
    assert sizes[0] < 0.7 * sizes[1], "the names of the tensors stay"
    full, half = Segmenter.load(run, precision="fp32"), Segmenter.load("discs", precision="fp32")
    assert next(half.model.mask_decoder.parameters()).dtype == torch.float32
    scores = []
    for case in draw_discs(12):
        boxes = case_boxes(case, "union", 20, seed=0)
        first, second = (model.predict_case(case, boxes)[0][0] for model in (full, half))
        scores.append((dice(first, case.mask), dice(second, case.mask), dice(first, second)))
    of_full, of_half, agreement = torch.tensor(scores).mean(dim=0).tolist()
    assert abs(of_full - of_half) < 1e-3
    assert agreement > 0.999


def test_the_card_says_terms_use_and_limits_and_no_path(run, place, tmp_path):
    folder = release(run, "discs", "kvasir", tmp_path / "checkpoints")
    text = (folder / "README.md").read_text()
    for said in ("CC BY 4.0", "Jha et al.", "Intended use and limits", "not for clinical use", 'load("discs")'):
        assert said in text
    assert text.index("## Use") < text.index("## Intended use") < text.index("## Data")
    assert str(place) not in text + (folder / "run_card.json").read_text()


def test_what_cannot_be_released_is_refused(run, tmp_path):
    place = tmp_path / "checkpoints"
    with pytest.raises(ConfigError, match="'a/b' is no name"):
        release(run, "a/b", root=place)
    with pytest.raises(ConfigError, match="no data source 'nope': use kvasir, breast"):
        release(run, "discs", "nope", place)
    state = load_file(run / "decoder.safetensors")
    key = next(iter(state))
    save_file(state | {key: torch.full_like(state[key], 1e6)}, run / "decoder.safetensors")
    with pytest.raises(CheckpointError, match="half precision cannot"):
        release(run, "discs", root=place)
    card = json.loads((run / "run_card.json").read_text())
    (run / "run_card.json").write_text(json.dumps(card | {"split": "dev"}))
    with pytest.raises(CheckpointError, match="not a finished run that was scored on val"):
        release(run, "discs", root=place)
    assert not place.exists()
