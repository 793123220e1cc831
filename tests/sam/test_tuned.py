"""Decoder checkpoints: given back as they were saved, and damaged ones named."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from medsam_helpers.errors import CheckpointError
from medsam_helpers.sam.loading import load_sam, state_digest
from medsam_helpers.sam.tuned import load_checkpoint, part_state, read_card, save_decoder


def test_a_decoder_checkpoint_gives_the_tuned_model_back(tuned, tiny_folder, tmp_path):
    base = load_sam(tiny_folder)
    loaded = load_checkpoint(tuned)
    assert torch.equal(loaded.mask_decoder.iou_token.weight, base.mask_decoder.iou_token.weight + 1)
    assert part_state(loaded, ["vision_encoder"]).keys() == part_state(base, ["vision_encoder"]).keys()
    assert load_checkpoint(tuned, base) is base, "a model that is given is changed in place"
    assert state_digest(base) == state_digest(loaded)
    half = {name: weight.half() for name, weight in load_file(tuned / "decoder.safetensors").items()}
    folder = save_decoder(half, tmp_path / "half", read_card(tuned))
    assert load_checkpoint(folder).mask_decoder.iou_token.weight.dtype == torch.float32, "from half precision too"


def test_a_decoder_refuses_another_base(tuned, tmp_path, tiny_sam):
    with torch.no_grad():
        tiny_sam.vision_encoder.pos_embed += 1
    tiny_sam.save_pretrained(tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"trained on tiny with digest .*, this base has .*right base"):
        load_checkpoint(tuned, tmp_path / "other")


def test_equal_weights_are_equal_bytes(tuned, tmp_path):
    state, card = load_file(tuned / "decoder.safetensors"), read_card(tuned)
    for number in range(8):  # two entries of metadata change places sooner or later
        save_decoder(state, tmp_path / str(number), card)
    assert len({(tmp_path / str(number) / "decoder.safetensors").read_bytes() for number in range(8)}) == 1


def change(weights, metadata=None, **changes):
    state = {name: value for name, value in (load_file(weights) | changes).items() if value is not None}
    save_file(state, weights, metadata)


TOKEN = "mask_decoder.iou_token.weight"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda weights, _: weights.write_bytes(weights.read_bytes()[:-100]), "missing or damaged"),
        (lambda weights, _: change(weights, **{TOKEN: None}), "1 decoder weights missing"),
        (lambda weights, _: change(weights, **{TOKEN: torch.zeros(3, 5)}), "0 decoder weights missing, 1 unknown"),
        (lambda weights, _: change(weights, **{TOKEN: torch.zeros(1, 32) / 0}), rf"no finite numbers, in {TOKEN}"),
        (lambda weights, _: change(weights, {"base_digest": "0" * 64}), "run_card.json is of another decoder"),
        (lambda _, card: card.write_bytes(b"\xff\xfe{"), "not a decoder checkpoint"),
        (lambda _, card: card.write_text('{"base_digest": "0"}'), "not a decoder checkpoint"),
    ],
)
def test_a_damaged_decoder_is_named(tuned, damage, message):
    damage(tuned / "decoder.safetensors", tuned / "run_card.json")
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tuned)
