"""SAM ViT-B in the hub's layout, random weights, through all that the command line does with it.

Every size is the real one but for the depth: two of the encoder's twelve layers, the second one global. One image is
encoded, for all cases hold the same pixels. Pretrained run: on a GPU with the hub, by the same command, `medsam
finetune --data kvasir --model sam-vit-base`. Random weights prove the path, not the score.
"""

import shutil

import numpy as np
import pytest
import torch
from helpers import mask_of, medsam, save_images
from transformers import SamConfig, SamModel

from medsam_helpers.data.case import Case, Cases
from medsam_helpers.sam.embeddings import EmbeddingStore
from medsam_helpers.sam.loading import model_info, state_digest
from medsam_helpers.sam.tuned import load_checkpoint

pytestmark = pytest.mark.slow


def test_two_steps_teach_the_decoder_and_the_export_holds_the_weights_of_the_checkpoint(request, cache):
    root = cache.parent
    request.addfinalizer(lambda: shutil.rmtree(root))  # hundreds of megabytes
    torch.manual_seed(0)
    # The default spread, 1e-10, would make every embedding the same.
    depth = {"num_hidden_layers": 2, "global_attn_indexes": [1]}
    SamModel(SamConfig(vision_config={"initializer_range": 0.02} | depth)).save_pretrained(root / "vit-b")
    pixels = np.random.default_rng(0).integers(0, 255, (64, 96, 3)).astype(np.uint8)
    mask = mask_of((64, 96), (2, 62, 2, 94))
    save_images(Cases([f"case-{i}" for i in range(4)], lambda name: Case(name, pixels, mask)), root / "data")
    for split, names in {"train": ["case-0", "case-1"], "dev": ["case-2"], "val": ["case-3"]}.items():
        (root / "data" / f"{split}.txt").write_text("\n".join(names))
    # Recipe `best` would show four views of each image.
    where = ["--data", root / "data", "--model", root / "vit-b", "--output", root / "run"]
    how = ["--recipe", "medsam", "--epochs", 1, "--batch", 1, "--lr", "1e-3", "--precision", "fp32", "--jitter", 0]
    figures = medsam("finetune", *where, *how, "--json").json
    assert (figures["encoded"], figures["n_train"], figures["best_epoch"]) == (1, 2, 1)
    assert figures["tuned_dice"] > figures["zero_shot_dice"] + 0.05
    model = load_checkpoint(root / "run")
    features = EmbeddingStore.for_model(model_info(model), "fp32")[Case("case", pixels, mask).image_digest].float()
    assert features.shape == (256, 64, 64)
    assert 0.1 < features.std() < 10
    assert medsam("export", "--checkpoint", root / "run", "--output", root / "full").status == 0
    assert state_digest(SamModel.from_pretrained(root / "full")) == state_digest(model)
