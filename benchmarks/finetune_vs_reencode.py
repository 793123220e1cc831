"""How much cached embeddings save over the public notebooks' loop, which runs the encoder on every step.

Same model, images, batch and number of epochs on both sides. The pieces (encode, decoder step, read an image) are
measured, the total for 30 epochs follows from them, and both are printed. Caching and precision are told apart:

- `ratio_caching`: both sides compute in fp32, with the same encoder. Reading and writing embeddings counts.
- `ratio_both`: the cached side computes in bf16 where the hardware has it, encoder and decoder; null where it has not.

The re-encoding side is given the faster of the encodings with and without gradient tracking, a whole batch at once, and
no cost for its data loading: the ratio is a lower bound.

    python benchmarks/finetune_vs_reencode.py [--data SOURCE] [--model NAME] [--images N] [--epochs N]
"""
# make bench: --images 8

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from medsam_helpers.data import load_data
from medsam_helpers.embeddings import EmbeddingStore
from medsam_helpers.examples import PromptedCases
from medsam_helpers.losses import get_loss
from medsam_helpers.models import freeze_all_but, load_sam, pixel_values
from medsam_helpers.precision import autocast, default_device, has_fast_bf16
from medsam_helpers.recipes import get_recipe
from medsam_helpers.segmenter import Segmenter


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


def main() -> None:
    """Measure the pieces, print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="phantom")
    parser.add_argument("--model", default="mobile-sam")
    parser.add_argument("--images", type=int, default=8, help="images to measure on")
    parser.add_argument("--epochs", type=int, default=30)
    args = parser.parse_args()

    recipe, device = get_recipe("best"), default_device()
    cases = list(load_data(args.data, train_limit=args.images, dev_limit=1, val_limit=1).train)
    images = [case.image for case in cases]
    model = load_sam(args.model)
    segmenter = Segmenter(model, device, precision="fp32")
    batch = images[: recipe.batch]
    encode = seconds(lambda: segmenter.embed_batch(batch), 3) / len(batch)
    encode_bf16 = None
    if has_fast_bf16(device):
        quick = Segmenter(model, device, precision="bf16")
        encode_bf16 = seconds(lambda: quick.embed_batch(batch), 3) / len(batch)
    prepare = seconds(lambda: [pixel_values(image, segmenter.info) for image in batch], 3) / len(batch)

    with tempfile.TemporaryDirectory() as folder:
        store = EmbeddingStore.for_model(segmenter.info, "fp32", Path(folder))
        features = [embedding.features[0] for embedding in segmenter.embed_batch(images)]
        pairs = list(zip(cases, features, strict=True))
        started = time.perf_counter()
        store.build((case.image_digest, lambda value=value: value) for case, value in pairs)
        keep = (time.perf_counter() - started) / len(cases)
        examples = PromptedCases(cases, store, segmenter.info.frame, recipe.jitter_1024, recipe.box_mode, seed=0)
        optimizer = torch.optim.AdamW(freeze_all_but(model, recipe.trainable), lr=recipe.lr)
        loss_of = get_loss(recipe.loss)

        def read() -> dict[str, torch.Tensor]:
            rows = [examples[i % len(examples)] for i in range(recipe.batch)]
            return {name: torch.stack([row[name] for row in rows]).to(device) for name in rows[0]}

        ready = read()

        def step(precision: str) -> None:
            inputs = {name: value for name, value in ready.items() if name != "target"}
            with autocast(device, precision):
                logits = model(**inputs, multimask_output=False).pred_masks
            loss_of(logits.flatten(0, 1), ready["target"]).backward()
            optimizer.step()
            optimizer.zero_grad()

        decode = seconds(lambda: step("fp32"), 6) / recipe.batch
        decode_bf16 = seconds(lambda: step("bf16"), 6) / recipe.batch if encode_bf16 else None
        load = seconds(read, 6) / recipe.batch

    epochs = args.epochs
    reencoding = epochs * (encode + decode)
    cached = {"fp32": encode + keep + epochs * (load + decode)}
    if encode_bf16 and decode_bf16:
        cached["bf16"] = encode_bf16 + keep + epochs * (load + decode_bf16)
    pieces = {
        "encode_fp32": encode,
        "encode_bf16": encode_bf16,
        "of_which_resize_and_pad": prepare,
        "write_embedding": keep,
        "read_example": load,
        "decoder_step_fp32": decode,
        "decoder_step_bf16": decode_bf16,
    }
    print(
        json.dumps(
            {
                "ratio_caching": round(reencoding / cached["fp32"], 2),
                "ratio_both": round(reencoding / cached["bf16"], 2) if "bf16" in cached else None,
                "epochs": epochs,
                "batch": recipe.batch,
                "n": len(cases),
                "model": args.model,
                "device": str(device),
                "threads": torch.get_num_threads(),
                "seconds_per_image": {k: v and round(v, 4) for k, v in pieces.items()},
                "seconds_per_image_in_all": {
                    "reencoding": round(reencoding, 2),
                    **{f"cached_{k}": round(v, 2) for k, v in cached.items()},
                },
            }
        )
    )


if __name__ == "__main__":
    main()
