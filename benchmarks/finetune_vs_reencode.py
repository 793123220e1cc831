"""How much cached embeddings save over the public notebooks' loop, which runs the encoder on every step.

Same model, images, batch and number of epochs on both sides. The pieces (encode, decoder step, read an image) are
measured, the total for 30 epochs follows from them, and both are printed. What saves is told apart:

- `ratio_caching`: caching alone. Both sides compute in fp32, with the same encoder and decoder, and leave the memory
  allocator as it is, as the public notebooks do. Reading and writing embeddings counts.
- `ratio_all`: the cached side also keeps freed memory (`keep_freed_memory`), and computes in bf16 where that is faster.

The re-encoding side is given the faster of the encodings with and without gradient tracking, a whole batch at once,
our fused encoder and quick decoder, and no cost for its data loading: both ratios are lower bounds.

Memory is the most that a process of each loop holds over a few steps: the model, a batch, the optimiser.

    python benchmarks/finetune_vs_reencode.py [--data SOURCE] [--model NAME] [--images N] [--epochs N] [--output DIR]

`--output` writes what is printed to DIR/costs.json, with a run card.
"""
# make bench: --images 8

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from medsam_helpers.data.loading import load_data
from medsam_helpers.device import autocast, default_device, has_fast_bf16
from medsam_helpers.files import atomic_write
from medsam_helpers.runs.card import own_memory_mb, write_run_card
from medsam_helpers.runs.embed import keep_freed_memory
from medsam_helpers.sam.embeddings import EmbeddingStore
from medsam_helpers.sam.loading import load_sam, pixel_values
from medsam_helpers.sam.model import freeze_all_but
from medsam_helpers.sam.segmenter import Segmenter
from medsam_helpers.training.dataset import PromptedCases
from medsam_helpers.training.losses import get_loss
from medsam_helpers.training.recipes import get_recipe


def seconds(task: Callable[[], object], repeats: int) -> float:
    """Median time of a call after one to warm up."""
    task()
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        task()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def measure(args: argparse.Namespace) -> dict[str, float | None]:
    """Seconds an image of each piece, in this process."""
    recipe, device = get_recipe("best"), default_device()
    cases = list(load_data(args.data, train_limit=args.images, dev_limit=1, val_limit=1).train)
    images = [case.image for case in cases]
    model = load_sam(args.model)
    segmenter = Segmenter(model, device, precision="fp32")
    batch = images[: recipe.batch]
    pieces = {"encode_fp32": seconds(lambda: segmenter.encode(batch), 3) / len(batch), "encode_bf16": None}
    if has_fast_bf16(device):
        quick = Segmenter(model, device, precision="bf16")
        pieces["encode_bf16"] = seconds(lambda: quick.encode(batch), 3) / len(batch)
    pieces["of_which_resize_and_pad"] = seconds(
        lambda: [pixel_values(image, segmenter.info) for image in batch], 3
    ) / len(batch)
    with tempfile.TemporaryDirectory() as folder:
        store = EmbeddingStore.for_model(segmenter.info, "fp32", Path(folder))
        features = list(segmenter.encode(images))
        pairs = list(zip(cases, features, strict=True))
        started = time.perf_counter()
        for case, value in pairs:
            store.put(case.image_digest, value)
        pieces["write_embedding"] = (time.perf_counter() - started) / len(cases)
        examples = PromptedCases(cases, store, segmenter.info.transform, recipe)

        def read() -> dict[str, torch.Tensor]:
            return examples.batch([i % len(examples) for i in range(recipe.batch)], device)

        pieces["read_example"] = seconds(read, 6) / recipe.batch
        ready = read()

    optimizer = torch.optim.AdamW(freeze_all_but(model, recipe.trainable), lr=recipe.lr, fused=True)
    loss_of = get_loss(recipe.loss)

    def step(precision: str) -> None:
        inputs = {name: value for name, value in ready.items() if name != "target"}
        with autocast(device, precision):
            logits = model(**inputs, multimask_output=False).pred_masks
        loss_of(logits.flatten(0, 1), ready["target"]).backward()
        optimizer.step()
        optimizer.zero_grad()

    pieces["decoder_step_fp32"] = seconds(lambda: step("fp32"), 6) / recipe.batch
    pieces["decoder_step_bf16"] = seconds(lambda: step("bf16"), 6) / recipe.batch if pieces["encode_bf16"] else None
    return {name: value and round(value, 4) for name, value in pieces.items()}


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


def measured_apart(keep_memory: str, *mode: str) -> dict[str, float | None]:
    """`measure` or `peak` in a process of its own: an allocator, once told, cannot be told otherwise."""
    command = [sys.executable, *sys.argv, *(mode or ("--pieces",))]
    environment = os.environ | {"MEDSAM_KEEP_MEMORY": keep_memory}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def cached_seconds(pieces: dict[str, float | None], epochs: int, precision: str) -> float:
    """Seconds an image when the encoder runs once."""
    once = pieces[f"encode_{precision}"] + pieces["write_embedding"]
    return once + epochs * (pieces["read_example"] + pieces[f"decoder_step_{precision}"])


def main() -> None:
    """Measure the pieces, print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="phantom")
    parser.add_argument("--model", default="mobile-sam")
    parser.add_argument("--images", type=int, default=8, help="images to measure on")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--pieces", action="store_true", help="print this process's pieces only")
    parser.add_argument("--peak", choices=("cached", "reencoding"), help="print this process's peak memory only")
    parser.add_argument("--output", type=Path, help="folder for the record")
    args = parser.parse_args()
    if args.pieces or args.peak:
        keep_freed_memory()
        print(json.dumps(peak(args) if args.peak else measure(args)))
        return

    started = time.perf_counter()
    plain, kept = measured_apart("0"), measured_apart("1")
    reencoding = args.epochs * (plain["encode_fp32"] + plain["decoder_step_fp32"])
    caching = cached_seconds(plain, args.epochs, "fp32")
    precision = "bf16" if kept["encode_bf16"] else "fp32"
    everything = cached_seconds(kept, args.epochs, precision)
    costs = {
        "ratio_caching": round(reencoding / caching, 2),
        "ratio_all": round(reencoding / everything, 2),
        "precision_all": precision,
        "epochs": args.epochs,
        "batch": get_recipe("best").batch,
        "n": args.images,
        "model": args.model,
        "device": str(default_device()),
        "threads": torch.get_num_threads(),
        "seconds_per_image": {"allocator_as_it_is": plain, "freed_memory_kept": kept},
        "seconds_per_image_in_all": {
            "reencoding": round(reencoding, 2),
            "cached": round(caching, 2),
            "cached_all": round(everything, 2),
        },
        "own_mb": {loop: measured_apart("1", "--peak", loop)["own_mb"] for loop in ("cached", "reencoding")},
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
