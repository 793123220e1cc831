"""How much cached embeddings save over a loop that runs the encoder on every step.

Same model, images, batch and number of epochs on all sides. The pieces (encode, decoder step, read an image) are
measured, the total for 30 epochs follows from them, and both are printed. What is compared:

- `ratio_all`: re-encoding with this package's own encoder and decoder in fp32, against the cached side with everything
  on: it keeps freed memory (`keep_freed_memory`), and computes in bf16 where that is faster.
- `ratio_public`: the same cached side, against the loop of the public notebooks: the encoder as published (batch
  normalisation apart, attention written out), the decoder of `transformers`, MONAI's loss, Adam, fp32.
- `ratio_caching`: caching alone, with our model and fp32 on both sides. Reading and writing embeddings counts.

Sides that re-encode leave the memory allocator as it is, as the public notebooks do. They are given a whole batch at
once, our resizing, and no cost for data loading: the ratios are lower bounds.

Two processes, one a setting of the allocator, measure all pieces in turns, `--rounds` times. A piece is the median of
its rounds. `range` holds the least and the largest ratio of a single round: near each other where the machine is quiet.

Memory is the most that a process of each loop holds over a few steps: the model, a batch, the optimiser.

    python benchmarks/finetune_vs_reencode.py [--data SOURCE] [--model NAME] [--images N] [--epochs N] [--rounds N]
        [--output DIR]

`--output` writes what is printed to DIR/costs.json, with a run card.
"""
# make bench: --images 8 --rounds 3

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from subprocess import PIPE
from unittest import mock

import torch
from monai.losses import DiceCELoss
from torch import Tensor
from transformers import SamModel
from transformers.models.sam.modeling_sam import SamMaskDecoder

from medsam_helpers.data.loading import load_data
from medsam_helpers.device import autocast, default_device, has_fast_bf16
from medsam_helpers.files import atomic_write
from medsam_helpers.runs.card import own_memory_mb, write_run_card
from medsam_helpers.runs.embed import keep_freed_memory
from medsam_helpers.sam.embeddings import EmbeddingStore
from medsam_helpers.sam.loading import load_sam, pixel_values
from medsam_helpers.sam.model import freeze_all_but
from medsam_helpers.sam.segmenter import Segmenter
from medsam_helpers.sam.tiny_vit import ConvNorm, TinyViT, WindowAttention
from medsam_helpers.training.dataset import PromptedCases
from medsam_helpers.training.losses import get_loss
from medsam_helpers.training.recipes import get_recipe

LOOPS = ("cached", "reencoding")  # whose memory is measured


def published(name: str) -> SamModel:
    """The model with the same weights and answers as the public loop has it, decoder and encoder as they came out."""
    with mock.patch.object(TinyViT, "fuse", lambda self: self):
        model = load_sam(name)
    decoder = SamMaskDecoder(model.mask_decoder.config)
    decoder.load_state_dict(model.mask_decoder.state_dict())
    model.mask_decoder = decoder.eval()
    for module in model.vision_encoder.modules():
        if isinstance(module, ConvNorm):  # not channels_last
            module.register_forward_pre_hook(lambda _, inputs: tuple(one.contiguous() for one in inputs))
        elif isinstance(module, WindowAttention):
            bias = module.attention_biases.detach()[:, module.offsets]
            module.forward = partial(written_out_attention, module, bias)
    model.vision_encoder.requires_grad_(False)
    model.prompt_encoder.requires_grad_(False)
    return model


def written_out_attention(layer: WindowAttention, bias: Tensor, x: Tensor) -> Tensor:
    """What `WindowAttention` computes, as MobileSAM's code does it, without a fused kernel."""
    windows, tokens, width = x.shape
    qkv = layer.qkv(layer.norm(x)).view(windows, tokens, layer.heads, -1).transpose(1, 2)
    query, key, value = qkv.chunk(3, dim=-1)
    weights = (query @ key.transpose(-2, -1)) * query.shape[-1] ** -0.5 + bias
    x = (weights.softmax(dim=-1) @ value).transpose(1, 2)
    return layer.proj(x.reshape(windows, tokens, width))


def seconds(task: Callable[[], object]) -> float:
    """Time of a call."""
    started = time.perf_counter()
    task()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def rounds(args: argparse.Namespace) -> Iterator[dict[str, float]]:
    """Seconds an image of each piece, in this process: measured anew each time that the next is asked for."""
    recipe, device = get_recipe("best").but(views=("as-is",)), default_device()
    cases = list(load_data(args.data, train_limit=args.images, dev_limit=1, val_limit=1).train)
    model, public = load_sam(args.model), published(args.model).to(device)
    segmenter = Segmenter(model, device, precision="fp32")
    batch = [cases[i % len(cases)].image for i in range(recipe.batch)]

    def pixels() -> Tensor:
        return torch.cat([pixel_values(image, segmenter.info, device) for image in batch])

    with tempfile.TemporaryDirectory() as folder:
        store = EmbeddingStore.for_model(segmenter.info, "fp32", Path(folder))
        pairs = [(case.image_digest, segmenter.encode([case.image])[0]) for case in cases]

        def write() -> None:
            for digest, features in pairs:
                store.put(digest, features)

        write()
        examples = PromptedCases(cases, store, segmenter.info.transform, recipe)

        def read() -> dict[str, Tensor]:
            return examples.batch([i % len(examples) for i in range(recipe.batch)], device)

        ready = read()
        inputs, target = {name: ready[name] for name in ("image_embeddings", "input_boxes")}, ready["target"]
        boxes = inputs["input_boxes"]
        with torch.no_grad():  # the public side computes the same
            ours = model(**inputs, multimask_output=False).pred_masks
            theirs = public(pixel_values=pixels(), input_boxes=boxes, multimask_output=False).pred_masks
        torch.testing.assert_close(theirs, ours, atol=0.1, rtol=0)

        optimizer = torch.optim.AdamW(freeze_all_but(model, recipe.trainable), lr=recipe.lr, fused=True)
        loss_of = get_loss(recipe.loss)

        def step(precision: str) -> None:
            with autocast(device, precision):
                logits = model(**inputs, multimask_output=False).pred_masks
            loss_of(logits.flatten(0, 1).float(), target).backward()
            optimizer.step()
            optimizer.zero_grad()

        public_optimizer = torch.optim.Adam(public.mask_decoder.parameters(), lr=1e-5)
        public_loss = DiceCELoss(sigmoid=True, squared_pred=True, reduction="mean")

        def public_step() -> None:
            outputs = public(pixel_values=pixels(), input_boxes=boxes, multimask_output=False)
            loss = public_loss(outputs.pred_masks.squeeze(1), target)
            public_optimizer.zero_grad()
            loss.backward()
            public_optimizer.step()

        tasks = {
            "encode_fp32": lambda: segmenter.encode(batch),
            "of_which_resize_and_pad": pixels,
            "read_example": read,
            "decoder_step_fp32": lambda: step("fp32"),
            "public_step": public_step,
        }
        if has_fast_bf16(device):
            quick = Segmenter(model, device, precision="bf16")
            tasks |= {"encode_bf16": lambda: quick.encode(batch), "decoder_step_bf16": lambda: step("bf16")}
        for task in tasks.values():
            task()
        while True:
            pieces = {name: seconds(task) / recipe.batch for name, task in tasks.items()}
            yield pieces | {"write_embedding": seconds(write) / len(cases)}


def peak(args: argparse.Namespace) -> dict[str, int | None]:
    """The most memory that this process holds while it takes three steps of one of the loops, MB."""
    recipe, device = get_recipe("best"), default_device()
    cases = load_data(args.data, train_limit=recipe.batch, dev_limit=1, val_limit=1).train
    model = load_sam(args.model)
    segmenter = Segmenter(model, device, precision="fp32")
    images = [case.image for case in cases]
    target = torch.zeros(recipe.batch, 1, segmenter.info.mask_size, segmenter.info.mask_size, device=device)
    target[..., :64, :64] = 1
    boxes = torch.tensor([[[0.0, 0.0, 64.0, 64.0]]], device=device).expand(recipe.batch, -1, -1)
    optimizer = torch.optim.AdamW(freeze_all_but(model, recipe.trainable), lr=recipe.lr, fused=True)
    loss_of, features = get_loss(recipe.loss), torch.zeros(recipe.batch, 256, 64, 64, device=device)
    for _ in range(3):
        if args.peak == "reencoding":
            features = segmenter.encode(images).clone()
        logits = model(image_embeddings=features, input_boxes=boxes, multimask_output=False).pred_masks
        loss_of(logits.flatten(0, 1), target).backward()
        optimizer.step()
        optimizer.zero_grad()
    return {"own_mb": own_memory_mb()}


def apart(keep_memory: str, *mode: str) -> subprocess.Popen[str]:
    """`rounds` or `peak` in a process of its own: an allocator, once told, cannot be told otherwise."""
    environment = os.environ | {"MEDSAM_KEEP_MEMORY": keep_memory}
    return subprocess.Popen([sys.executable, *sys.argv, *mode], env=environment, stdin=PIPE, stdout=PIPE, text=True)


def measured_in_turns(count: int) -> list[dict[str, dict[str, float]]]:
    """The pieces of each round under both settings of the allocator."""
    workers = {"allocator_as_it_is": apart("0", "--pieces"), "freed_memory_kept": apart("1", "--pieces")}
    found = []
    for _ in range(count):
        found.append({})
        for setting, worker in workers.items():
            print(file=worker.stdin, flush=True)  # a line asks for the next round
            found[-1][setting] = json.loads(worker.stdout.readline())
    for worker in workers.values():
        worker.communicate()
    return found


def totals(pieces: dict[str, dict[str, float]], epochs: int) -> dict[str, float]:
    """Seconds an image of each loop in all."""
    plain, kept = pieces["allocator_as_it_is"], pieces["freed_memory_kept"]

    def cached(of: dict[str, float], precision: str) -> float:
        once = of[f"encode_{precision}"] + of["write_embedding"]
        return once + epochs * (of["read_example"] + of[f"decoder_step_{precision}"])

    return {
        "reencoding": epochs * (plain["encode_fp32"] + plain["decoder_step_fp32"]),
        "public": epochs * plain["public_step"],
        "cached": cached(plain, "fp32"),
        "cached_all": cached(kept, precision_of(kept)),
    }


def precision_of(pieces: dict[str, float]) -> str:
    """What the cached side computes in with everything on."""
    return "bf16" if "encode_bf16" in pieces else "fp32"


def ratios(of: dict[str, float]) -> dict[str, float]:
    """How many times each cached loop is faster, of `totals`."""
    return {
        "ratio_all": round(of["reencoding"] / of["cached_all"], 2),
        "ratio_public": round(of["public"] / of["cached_all"], 2),
        "ratio_caching": round(of["reencoding"] / of["cached"], 2),
    }


def main() -> None:
    """Measure the pieces, print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="phantom")
    parser.add_argument("--model", default="mobile-sam")
    parser.add_argument("--images", type=int, default=8, help="images to measure on")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=7, help="times that each piece is measured")
    parser.add_argument("--pieces", action="store_true", help="print this process's pieces only")
    parser.add_argument("--peak", choices=LOOPS, help="print this process's peak memory only")
    parser.add_argument("--output", type=Path, help="folder for the record")
    args = parser.parse_args()
    if args.pieces or args.peak:
        keep_freed_memory()
        if args.peak:
            print(json.dumps(peak(args)))
        else:
            for _, pieces in zip(sys.stdin, rounds(args), strict=False):
                print(json.dumps(pieces), flush=True)
        return

    started = time.perf_counter()
    measured = measured_in_turns(args.rounds)
    median = {
        setting: {name: statistics.median(one[setting][name] for one in measured) for name in pieces}
        for setting, pieces in measured[0].items()
    }
    singles = [ratios(totals(one, args.epochs)) for one in measured]
    in_all = totals(median, args.epochs)
    costs = {
        **ratios(in_all),
        "range": {name: [min(each), max(each)] for name in singles[0] if (each := [one[name] for one in singles])},
        "precision_all": precision_of(median["freed_memory_kept"]),
        "epochs": args.epochs,
        "batch": get_recipe("best").batch,
        "rounds": args.rounds,
        "n": args.images,
        "model": args.model,
        "device": str(default_device()),
        "threads": torch.get_num_threads(),
        "seconds_per_image": {
            setting: {name: round(value, 4) for name, value in pieces.items()} for setting, pieces in median.items()
        },
        "seconds_per_image_in_all": {name: round(value, 2) for name, value in in_all.items()},
        "own_mb": {loop: json.loads(apart("1", "--peak", loop).communicate()[0])["own_mb"] for loop in LOOPS},
    }
    if args.output:
        with atomic_write(args.output / "costs.json") as temporary:
            temporary.write_text(json.dumps(costs, indent=2) + "\n", encoding="utf-8")
        write_run_card(
            args.output / "run_card.json",
            command=["python", *sys.argv],
            data_digest=load_data(args.data, train_limit=args.images, dev_limit=1, val_limit=1).digest,
            seconds=time.perf_counter() - started,
        )
    print(json.dumps(costs))


if __name__ == "__main__":
    main()
