"""`load_sam`: names, files and folders, damaged ones too; pixels as the model saw them in training."""

import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from medsam_helpers.errors import CheckpointError, ConfigError
from medsam_helpers.sam import checkpoints
from medsam_helpers.sam.loading import load_sam, model_info, pixel_values


def test_what_is_no_base_model_is_named(tiny_folder, tiny_sam, tuned, tmp_path):
    with pytest.raises(ConfigError, match="no model 'sam-huge': use mobile-sam, lite-medsam, sam-vit-base"):
        load_sam("sam-huge")
    with pytest.raises(ConfigError, match="fine-tuned decoder, not a base model"):
        load_sam(tuned)
    path = tiny_folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"tiny: cannot be loaded as a SAM"):
        load_sam(tiny_folder)
    endless = torch.full_like(tiny_sam.vision_encoder.pos_embed, torch.inf)
    for change, said in (
        ({"mask_decoder.iou_token.weight": None}, "weights are missing: mask_decoder.iou_token.weight"),
        ({"vision_encoder.pos_embed": endless}, "no finite numbers, in vision_encoder.pos_embed"),
    ):
        tiny_sam.save_pretrained(tiny_folder)
        weights = {name: value for name, value in (load_file(path) | change).items() if value is not None}
        save_file(weights, path, {"format": "pt"})
        with pytest.raises(CheckpointError, match=said):
            load_sam(tiny_folder)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match="describes a 'bert' model"):
        load_sam(tmp_path)


class Evil(str):
    """A path; unpickling it would write a file there."""

    def __reduce__(self):
        return (open, (str(self), "w"))


@pytest.mark.parametrize("pinned", [False, True])
def test_a_pickle_that_runs_code_is_not_opened_even_with_a_pinned_hash(tmp_path, monkeypatch, pinned):
    trap, path = tmp_path / "sprung", tmp_path / "evil.pt"
    path.write_bytes(pickle.dumps(Evil(trap)))
    if pinned:
        fake = checkpoints.PinnedFile("mobile-sam", "mobile_sam.pt", 1, checkpoints.sha256_of(path), ())
        monkeypatch.setitem(checkpoints.WEIGHTS, "mobile-sam", fake)
    said = "not a checkpoint of this network" if pinned else r"no checkpoint known here.*pickle can run code"
    with pytest.raises(CheckpointError, match=rf"evil\.pt: .*{said}"):
        load_sam(path)
    assert not trap.exists()


def test_pixels_are_scaled_as_the_model_saw_them_in_training(tiny_sam):
    image = np.full((50, 100, 3), 10, np.uint8)
    image[0, 0] = 110
    imagenet = pixel_values(image, model_info(tiny_sam))
    assert imagenet.shape == (1, 3, 128, 128)
    assert imagenet[0, 0, 40, 60].item() == pytest.approx((10 / 255 - 0.485) / 0.229, abs=1e-5)
    assert (imagenet[..., 64:, :] == 0).all(), "padded with zeros after scaling"
    tiny_sam.config.pixel_scaling = "minmax"
    minmax = pixel_values(image, model_info(tiny_sam))
    assert (minmax.min().item(), minmax.max().item()) == (0, 1)
    assert pixel_values(np.zeros((5, 5, 3), np.uint8), model_info(tiny_sam)).abs().max() == 0, "a flat image is no 0/0"
