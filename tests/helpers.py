"""Small stand-ins that many tests share: a random SAM, cases to segment, pictures, commands, a server."""

import io
import json
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from transformers import Sam2VideoConfig, Sam2VideoModel, SamConfig, SamModel
from werkzeug import Request, Response
from werkzeug.serving import make_server

from medsam_helpers.cli.main import main
from medsam_helpers.data.case import Case, Cases
from medsam_helpers.evaluation.tables import COLUMNS
from medsam_helpers.runs.embed import embed_cases
from medsam_helpers.sam.embeddings import EmbeddingStore
from medsam_helpers.sam.segmenter import Segmenter


def make_tiny_sam(seed: int = 0) -> SamModel:
    """A SAM of the real architecture with 0.1 M random weights: input 128, embedding 16 x 16, masks 64 x 64."""
    torch.manual_seed(seed)
    width, sides = 32, {"image_size": 128, "patch_size": 8}
    spread = {"initializer_range": 0.1}  # the encoder's default, 1e-10, makes every embedding zero
    shared = {"hidden_size": width, "num_attention_heads": 2, "mlp_dim": 64}
    vision = {"output_channels": width, "num_hidden_layers": 2, "window_size": 4, "global_attn_indexes": [1]}
    vision |= {"num_pos_feats": width // 2} | shared | sides | spread
    prompts = {"hidden_size": width, "mask_input_channels": 4} | sides
    parts = {"vision_config": vision, "prompt_encoder_config": prompts}
    return SamModel(SamConfig(mask_decoder_config=shared | {"iou_head_hidden_dim": width}, **parts, **spread)).eval()


def save_tiny_sam2(folder: Path, **config: Any) -> Path:
    """A SAM 2 of random weights as the hub has it, with its memory: input 128, embedding 8 x 8, masks 32 x 32."""
    torch.manual_seed(0)
    width = 128  # twice that of a memory, as in the published ones four times
    hiera = {"model_type": "sam2_hiera_det_model", "hidden_size": 8, "embed_dim_per_stage": [8, 16, 32, 64]}
    hiera |= {"blocks_per_stage": [1, 1, 2, 1], "global_attention_blocks": [3], "initializer_range": 0.1}
    vision = {"model_type": "sam2_vision_model", "backbone_config": hiera, "backbone_channel_list": [64, 32, 16, 8]}
    vision |= {"backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]], "fpn_hidden_size": width}
    decoder = {"hidden_size": width, "mlp_dim": 64, "num_attention_heads": 2, "iou_head_hidden_dim": 32}
    memory = {f"memory_{name}": width for name in ("attention_hidden_size", "encoder_hidden_size", "fuser_embed_dim")}
    memory |= {"memory_attention_rope_feat_sizes": [8, 8], "mask_downsampler_embed_dim": width}
    whole = Sam2VideoConfig(
        image_size=128,
        vision_config=vision | {"initializer_range": 0.1},
        prompt_encoder_config={"hidden_size": width, "image_size": 128, "mask_input_channels": 4},
        mask_decoder_config=decoder,
        initializer_range=0.1,
        **memory | config,
    )
    Sam2VideoModel(whole).save_pretrained(folder)
    return folder


def draw_discs(count: int, seed: int = 0) -> Cases:
    """Bright discs on a dark, noisy ground, images of varying, non-square size."""

    def draw(name: str) -> Case:
        rng = np.random.default_rng([seed, int(name.split("-")[1])])
        height, width = rng.integers(60, 120, 2)
        y, x = np.ogrid[:height, :width]
        centre_y, centre_x = rng.uniform(0.35, 0.65, 2) * (height, width)
        mask = (y - centre_y) ** 2 + (x - centre_x) ** 2 < (0.25 * min(height, width)) ** 2
        image = rng.integers(0, 90, (height, width, 3)) + mask[..., None] * 150
        return Case(name, image.astype(np.uint8), mask)

    return Cases([f"disc-{index}" for index in range(count)], draw)


def mask_of(hw: tuple[int, int], *regions: tuple[int, int, int, int]) -> np.ndarray:
    """(H, W) bool: the rectangles `(y0, y1, x0, x1)`."""
    mask = np.zeros(hw, bool)
    for y0, y1, x0, x1 in regions:
        mask[y0:y1, x0:x1] = True
    return mask


def patchwork(number: int, height: int = 64, width: int = 64) -> np.ndarray:
    """(H, W, 3) uint8: 8 x 8 patches of random colours; those of different numbers have nothing in common."""
    patches = np.random.default_rng(number).integers(0, 200, (8, 8, 3), np.uint8)
    return np.kron(patches, np.ones((height // 8, width // 8, 1), np.uint8))


def embedded(model, cases: Cases, folder: Path, device: str = "cpu", precision: str = "fp32") -> Segmenter:
    """A segmenter of the model, with the cases' embeddings in its store."""
    segmenter = Segmenter(model, device, precision)
    segmenter.store = EmbeddingStore.for_model(segmenter.info, precision, folder)
    embed_cases(segmenter, cases, show_progress=False)
    return segmenter


class StopAt(EmbeddingStore):
    """A store that interrupts the run at its n-th look-up."""

    def __init__(self, store: EmbeddingStore, lookups: int) -> None:
        super().__init__(store.folder, store.key)
        self.left = lookups

    def __getitem__(self, digest: str) -> torch.Tensor:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return super().__getitem__(digest)


def save_images(cases: Cases, folder: Path, n_train: int | None = None) -> Cases:
    """Write `images/` and `masks/`; lists too where the first so many cases are train, else readers draw the splits."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for case in cases:
        Image.fromarray(case.image).save(folder / "images" / f"{case.name}.png")
        Image.fromarray(case.mask).save(folder / "masks" / f"{case.name}.png")
    for split, names in {"train": cases.names[:n_train], "val": cases.names[n_train:]}.items() if n_train else ():
        (folder / f"{split}.txt").write_text("\n".join(names))
    return cases


class Said(NamedTuple):
    status: int
    out: str
    err: list[str]  # its lines, without progress bars

    @property
    def json(self) -> dict:
        return json.loads(self.out.splitlines()[-1], parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def medsam(*arguments: object) -> Said:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # argparse
            status = stop.code
    return Said(status, out.getvalue(), without_bars(err.getvalue()))


def without_bars(err: str) -> list[str]:
    return [line for line in re.split(r"[\r\n]+", err) if line.strip() and not re.search(r"\d%\||\dit/s|\?it/s", line)]


def table_of(**models: list[float]) -> pd.DataFrame:
    """A table of scores with one prompt: model -> Dice by case; `zero_shot` is called zero-shot."""
    rows = [
        {"case": f"case{i}", "model": model.replace("_", "-"), "prompt": "j20", "dice": dice}
        for model, scores in models.items()
        for i, dice in enumerate(scores)
    ]
    rest = {"seed": 0, "iou": 0.5, "hd95_percent": 1.0, "nsd": 0.25, "area_true": 9, "area_pred": 8, "iou_score": 0.5}
    return pd.DataFrame(rows).assign(**rest)[COLUMNS]


def stored_run(state: Path) -> dict:
    """What a training state's file says of its run."""
    with safe_open(state, framework="pt") as file:
        return json.loads(file.metadata()["run"])


def python(code: str, *arguments: object) -> str:
    """What the code prints in a process of its own, which has imported nothing yet."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout


@contextmanager
def loopback(answer: Callable[[Request], Response]) -> Iterator[str]:
    """The address of a server on the loopback that asks the function for each answer, until the block ends."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # the tests read answers, not logs
    server = make_server("127.0.0.1", 0, Request.application(answer), threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
