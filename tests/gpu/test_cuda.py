"""On a CUDA device: the CPU's answers in each precision, half precision that overflows, resuming, bounded memory.

`make test-gpu` runs these; elsewhere each is reported as skipped.
"""

import numpy as np
import pytest
import torch
from helpers import draw_discs, embedded, stored_run
from nbclient import NotebookClient
from notebook_rules import WRITTEN, read

from medsam_helpers.evaluation.metrics import dice
from medsam_helpers.sam.embeddings import Resident
from medsam_helpers.sam.loading import load_sam
from medsam_helpers.sam.segmenter import Segmenter
from medsam_helpers.training.loop import fit
from medsam_helpers.training.losses import dice_ce_loss
from medsam_helpers.training.recipes import get_recipe
from medsam_helpers.training.state import STATE_FILE, TrainingState

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
CASES = draw_discs(24)
RECIPE = get_recipe("quick").but(epochs=2, precision="fp32")


def segmenter(device, precision, folder=None):
    model = load_sam("mobile-sam")
    return embedded(model, CASES, folder, device, precision) if folder else Segmenter(model, device, precision)


def train(folder, recipe, store=None):
    """The result of a training, and where its state lies."""
    tuned = segmenter("cuda", recipe.precision, folder / "embeddings")
    options = {"show_progress": False}
    return fit(tuned.model, CASES[:16], CASES[16:], recipe, store or tuned.store, folder / "run", **options)


@pytest.mark.parametrize(("precision", "alike"), [("fp32", 0.999), ("bf16", 0.98), ("fp16", 0.98)])
def test_masks_are_those_of_the_cpu(precision, alike):
    cpu, gpu = segmenter("cpu", "fp32"), segmenter("cuda", precision)
    case = CASES[0]
    box = np.array([10.0, 10, 50, 50])
    one, other = (each.predict(case.image, boxes=box).masks[0, 0] for each in (cpu, gpu))
    assert dice(one, other) >= alike
    if precision == "fp32":  # with TF32, which keeps 10 bits, they would differ by more
        torch.testing.assert_close(cpu.encode([case.image]), gpu.encode([case.image]).cpu(), atol=2e-3, rtol=0)


def test_images_encoded_in_batches_are_those_encoded_alone(tmp_path):
    gpu = segmenter("cuda", "fp32", tmp_path)
    for case in CASES[:3]:
        alone = gpu.encode([case.image])[0].half().cpu()
        torch.testing.assert_close(gpu.store[case.image_digest], alone, atol=5e-3, rtol=0)


def test_fp16_goes_on_after_an_overflow_and_resumes_with_its_scaler(tmp_path, monkeypatch):
    def steep(logits, target):
        return 3e4 * dice_ce_loss(logits, target, squared=True)

    steep.version = "1"
    recipe = RECIPE.but(precision="fp16", loss=steep)
    result = train(tmp_path / "whole", recipe)
    assert np.isfinite(result.history["loss"][1:]).all()
    file = tmp_path / "whole" / "run" / STATE_FILE
    state = TrainingState.open(file, stored_run(file)["identity"])
    assert state.scaler["scale"] < 65536, "halved at each overflow"

    save, stopped = TrainingState.save, []

    def stop(self, *parts):
        save(self, *parts)
        if self.epoch == 1 and not stopped:
            stopped.append(1)
            raise KeyboardInterrupt

    monkeypatch.setattr(TrainingState, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "stopped", recipe)
    resumed = train(tmp_path / "stopped", recipe)
    # Some kernels add up in any order: not the same bits.
    assert resumed.history["dev_dice"].to_numpy() == pytest.approx(result.history["dev_dice"].to_numpy(), abs=0.02)


def test_what_stays_on_the_gpu_is_bounded_and_what_is_streamed_trains_alike(tmp_path, monkeypatch):
    resident = train(tmp_path / "resident", RECIPE)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    monkeypatch.setenv("MEDSAM_RESIDENT_MB", "1")  # half an embedding
    streamed = train(tmp_path / "streamed", RECIPE)
    assert streamed.history["loss"][1:].to_numpy() == pytest.approx(resident.history["loss"][1:].to_numpy(), rel=0.02)
    assert torch.cuda.max_memory_allocated() < 6e9
    store = segmenter("cuda", "fp32", tmp_path / "resident" / "embeddings").store
    monkeypatch.setenv("MEDSAM_RESIDENT_MB", "5")
    held = Resident(store, torch.device("cuda"))
    for case in CASES[:8]:
        assert held[case.image_digest].is_cuda
    assert len(held._held) == 2, "of 2 MB each"


@pytest.mark.parametrize("number", [0, 4, 5])
def test_a_notebook_runs_with_its_asserts(number, monkeypatch):
    for name, value in {"TRAIN_LIMIT": "16", "DEV_LIMIT": "4", "VAL_LIMIT": "8", "EPOCHS": "2"}.items():
        monkeypatch.setenv(f"MEDSAM_{name}", value)
    (path,) = (path for path in WRITTEN if path.stem.startswith(f"{number:02}"))
    notebook = read(path)
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(path.parent)}}).execute()
