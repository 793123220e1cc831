"""Decoder checkpoints: given back as they were saved, and damaged ones named."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from medsam_helpers.errors import CheckpointError
from medsam_helpers.sam.loading import load_sam, state_digest
from medsam_helpers.sam.tuned import load_checkpoint, part_state, read_card, save_decoder


def test_a_decoder_checkpoint_gives_the_tuned_model_back(tuned, tiny_folder):
    base = load_sam(tiny_folder)
    loaded = load_checkpoint(tuned)
    assert torch.equal(loaded.mask_decoder.iou_token.weight, base.mask_decoder.iou_token.weight + 1)
    assert part_state(loaded, ["vision_encoder"]).keys() == part_state(base, ["vision_encoder"]).keys()
    assert load_checkpoint(tuned, base) is base, "a model that is given is changed in place"
    assert state_digest(base) == state_digest(loaded)


def test_half_precision_halves_the_file_and_loads_as_float32(tuned, tmp_path):
    folder = save_decoder(load_file(tuned / "decoder.safetensors"), tmp_path / "half", read_card(tuned), torch.float16)
    sizes = [(path / "decoder.safetensors").stat().st_size for path in (folder, tuned)]
    assert sizes[0] < 0.6 * sizes[1]
    assert load_checkpoint(folder).mask_decoder.iou_token.weight.dtype == torch.float32


def test_a_decoder_refuses_another_base(tuned, tmp_path, tiny_sam):
    with torch.no_grad():
        tiny_sam.vision_encoder.pos_embed += 1
    tiny_sam.save_pretrained(tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"trained on tiny with digest .*, this base has .*right base"):
        load_checkpoint(tuned, tmp_path / "other")


def cut(weights, card):
    weights.write_bytes(weights.read_bytes()[:-100])


def lose_a_weight(weights, card):
    state = load_file(weights)
    del state["mask_decoder.iou_token.weight"]
    save_file(state, weights)


def change_a_shape(weights, card):
    save_file(load_file(weights) | {"mask_decoder.iou_token.weight": torch.zeros(3, 5)}, weights)


def break_the_card(weights, card):
    card.write_bytes(b"\xff\xfe{")


def lose_the_base(weights, card):
    card.write_text(json.dumps({"base_digest": "0"}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "missing or damaged"),
        (lose_a_weight, "1 decoder weights missing"),
        (change_a_shape, "0 decoder weights missing, 1 unknown or of another shape"),
        (break_the_card, "not a decoder checkpoint"),
        (lose_the_base, "not a decoder checkpoint"),
    ],
)
def test_a_damaged_decoder_is_named(tuned, damage, message):
    damage(tuned / "decoder.safetensors", tuned / "run_card.json")
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tuned)
