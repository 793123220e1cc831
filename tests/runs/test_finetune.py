"""What a run in the cache is known by; `tests/cli` runs it from end to end."""

from helpers import make_tiny_sam

from medsam_helpers.runs import finetune
from medsam_helpers.runs.finetune import run_folder
from medsam_helpers.runs.settings import RunConfig


def test_a_run_is_known_by_the_weights_it_begins_with_not_by_what_lies_beside_them(tmp_path):
    decoder, state = tmp_path / "decoder.safetensors", tmp_path / "training_state.safetensors"
    decoder.write_bytes(b"weights")
    config = RunConfig(start=str(tmp_path))
    first = run_folder(config, "pixels")
    state.write_bytes(b"optimiser")
    assert run_folder(config, "pixels") == first
    decoder.write_bytes(b"other weights")
    assert run_folder(config, "pixels") != first


def test_a_run_is_known_by_its_settings_its_base_its_pixels_and_its_precision(tmp_path, monkeypatch):
    def squares(logits, target):
        return ((logits.sigmoid() - target) ** 2).mean()

    make_tiny_sam().save_pretrained(tmp_path)
    config = RunConfig(model=str(tmp_path))
    asked = [(config, "pixels"), (config, "other pixels"), (config.but(lr=1e-3), "pixels")]
    asked.append((config.but(loss=squares), "pixels"))
    folders = [run_folder(*each) for each in asked]
    assert folders == [run_folder(*each) for each in asked]
    make_tiny_sam(seed=1).save_pretrained(tmp_path)  # another model at the same place
    folders.append(run_folder(config, "pixels"))
    for precision in ("fp32", "bf16"):
        monkeypatch.setattr(finetune, "effective_precision", lambda *_, precision=precision: precision)
        folders.append(run_folder(config.but(epochs=2), "pixels"))
    assert len(set(folders)) == 7
