"""Folders that several tests of this folder load: a tiny base in the hub's layout, and a decoder that was changed."""

import pytest
import torch

from medsam_helpers.sam.loading import load_sam, model_info
from medsam_helpers.sam.tuned import part_state, save_decoder


@pytest.fixture
def tiny_folder(tiny_sam, tmp_path):
    """Random weights in the hub's layout."""
    tiny_sam.save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def tuned(tiny_folder, tmp_path):
    """The folder of a decoder, changed from its base, with a model card."""
    model = load_sam(tiny_folder)
    with torch.no_grad():
        model.mask_decoder.iou_token.weight += 1
    info = model_info(model)
    card = {"base": info.name, "base_digest": info.base_digest, "base_path": str(tiny_folder)}
    card["metrics"] = {"tuned_dice": 0.5}
    folder = save_decoder(part_state(model, ["mask_decoder"]), tmp_path / "tuned", card)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A decoder for Zürich\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def mobile_sam():
    return load_sam("mobile-sam", show_progress=False)
