"""SAM ViT-B's real architecture, random weights in the hub's layout, through all that the command line does with it.

One image is encoded, for all cases hold the same pixels. Pretrained run: on a GPU with the hub, by the same command,
`medsam finetune --data kvasir --model sam-vit-base`. Random weights prove the path, not the score.
"""

import contextlib
import io
import json
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import SamConfig, SamModel, SamProcessor

from medsam_helpers.cli.main import main
from medsam_helpers.data.case import Case
from medsam_helpers.data.reading import read_image
from medsam_helpers.sam.embeddings import EmbeddingStore
from medsam_helpers.sam.loading import model_info, pixel_values, state_digest
from medsam_helpers.sam.parts import parameter_table
from medsam_helpers.sam.segmenter import Embedding, Segmenter
from medsam_helpers.sam.tuned import load_checkpoint

pytestmark = pytest.mark.slow

BOX = np.array([2, 2, 94, 62])


class Run(NamedTuple):
    root: Path
    figures: dict
    base: dict[str, torch.Tensor]


def medsam(*arguments: object) -> dict:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main([*map(str, arguments), "--json"]) == 0
    return json.loads(out.getvalue().splitlines()[-1])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two training steps from a folder that holds what the hub would send."""
    root = tmp_path_factory.mktemp("vit-b")
    torch.manual_seed(0)
    # The default spread, 1e-10, would make every embedding the same.
    SamModel(SamConfig(vision_config={"initializer_range": 0.02})).save_pretrained(root / "vit-b")
    pixels = np.random.default_rng(0).integers(0, 255, (64, 96, 3)).astype(np.uint8)
    mask = np.zeros((64, 96), bool)
    mask[2:62, 2:94] = True
    for part, array in (("images", pixels), ("masks", mask)):
        (root / "data" / part).mkdir(parents=True)
        for index in range(4):
            Image.fromarray(array).save(root / "data" / part / f"case-{index}.png")
    for split, names in {"train": ["case-0", "case-1"], "dev": ["case-2"], "val": ["case-3"]}.items():
        (root / "data" / f"{split}.txt").write_text("\n".join(names))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDSAM_CACHE", str(root / "cache"))
        # Recipe `best` would show four views of each image: twenty seconds each for this encoder.
        where = ["--data", root / "data", "--model", root / "vit-b", "--output", root / "run"]
        how = ["--recipe", "medsam", "--epochs", 1, "--batch", 1, "--lr", "1e-3", "--precision", "fp32", "--jitter", 0]
        figures = medsam("finetune", *where, *how)
        yield Run(root, figures, load_file(root / "vit-b" / "model.safetensors"))
    shutil.rmtree(root)  # a gigabyte


def test_one_image_was_encoded_and_two_steps_taught_the_decoder(run):
    assert (run.figures["encoded"], run.figures["n_train"], run.figures["best_epoch"]) == (1, 2, 1)
    assert run.figures["tuned_dice"] > run.figures["zero_shot_dice"] + 0.05
    decoder = load_file(run.root / "run" / "decoder.safetensors")
    assert sum(tensor.numel() for tensor in decoder.values()) == 4_058_340
    changed = [name for name, tensor in decoder.items() if not torch.equal(tensor, run.base[name])]
    assert len(changed) > len(decoder) / 2


def test_checkpoint_export_and_plain_transformers_give_the_same_mask(run, monkeypatch):
    monkeypatch.setenv("MEDSAM_CACHE", str(run.root / "cache"))
    model = load_checkpoint(run.root / "run")
    assert parameter_table(model).loc["total", "parameters"] == 93_735_728
    encoder = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("vision_encoder.")}
    assert all(torch.equal(tensor, run.base[name]) for name, tensor in encoder.items()), "the encoder stays the base's"

    image = read_image(run.root / "data" / "images" / "case-0.png")
    case = Case("case", image, np.ones(image.shape[:2], bool))
    store = EmbeddingStore.for_model(model_info(model), "fp32")
    features = store[case.image_digest].float()[None]
    assert features.shape == (1, 256, 64, 64)
    assert 0.1 < features.std() < 10

    medsam("export", "--checkpoint", run.root / "run", "--output", run.root / "full")
    plain, processor = SamModel.from_pretrained(run.root / "full"), SamProcessor.from_pretrained(run.root / "full")
    assert state_digest(plain) == state_digest(model)
    inputs = processor(images=image, input_boxes=[[BOX.tolist()]], return_tensors="pt")
    torch.testing.assert_close(inputs["pixel_values"], pixel_values(image, model_info(model)), atol=2e-2, rtol=0)
    with torch.inference_mode():
        boxes = inputs["input_boxes"].float()
        logits = plain(image_embeddings=features, input_boxes=boxes, multimask_output=False).pred_masks
    sizes = inputs["original_sizes"], inputs["reshaped_input_sizes"]
    theirs = processor.post_process_masks(logits, *sizes)[0][0, 0].numpy()

    segmenter = Segmenter(model, "cpu", precision="fp32")
    ours = segmenter.predict(Embedding(features, segmenter.info.transform(case.size_hw)), boxes=BOX)
    torch.testing.assert_close(ours.logits, logits[0], atol=1e-4, rtol=1e-4)
    np.testing.assert_array_equal(ours.masks[0, 0], theirs)
    assert logits.std() > 1e-3, "no two constants are compared"
