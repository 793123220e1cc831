"""How memory and time grow with the number of embeddings: a pass over training data, and a store of a million.

    python benchmarks/store_scale.py

The images are small and drawn, the embeddings hard links to a few files of the real size: what is measured is this
process's own memory and the work for each, not the disk. One JSON line: for each number of images the megabytes that
reading the cases and one pass over all batches added; for the store seconds to put, to open and to read at random.
"""
# make bench: --images 100 1000 --store 100000

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from medsam_helpers.data.case import Case, Cases, array_digest
from medsam_helpers.geometry import ImageTransform
from medsam_helpers.runs.card import own_memory_mb
from medsam_helpers.sam.embeddings import EmbeddingStore
from medsam_helpers.training.dataset import PromptedCases
from medsam_helpers.training.recipes import get_recipe

KEY = {"base": "synthetic"}
SHAPE = (256, 64, 64)
LINKS = 50_000  # to one file; ext4 allows 65,000


def draw(name: str) -> Case:
    """A small image of its own with a square lesion."""
    rng = np.random.default_rng(int(name))
    mask = np.zeros((48, 64), bool)
    mask[10:40, 10:50] = True
    return Case(name, rng.integers(0, 255, (48, 64, 3), np.uint8), mask)


def link(store: EmbeddingStore, digests: list[str]) -> None:
    """Make each digest's file a link to one of a few."""
    for start in range(0, len(digests), LINKS):
        first, *others = digests[start : start + LINKS]
        store.put(first, torch.zeros(SHAPE))
        source = store.folder / first[:2] / f"{first}.safetensors"
        for digest in others:
            place = store.folder / digest[:2]
            place.mkdir(exist_ok=True)
            os.link(source, place / source.name.replace(first, digest))


def pass_over(count: int, folder: Path) -> dict[str, float | None]:
    """Megabytes of its own that this process took, and seconds, for one pass over so many images in batches of 4."""
    cases, store = Cases([str(number) for number in range(count)], draw), EmbeddingStore(folder, KEY)
    link(store, [case.image_digest for case in cases])
    before, started = own_memory_mb(), time.perf_counter()
    examples = PromptedCases(cases, store, ImageTransform, get_recipe("quick"))
    order = examples.order()
    for first in range(0, len(order), 4):
        examples.batch(order[first : first + 4], torch.device("cpu"))
    after = own_memory_mb()
    grown = after - before if before is not None and after is not None else None
    return {"images": count, "own_mb": grown, "seconds": round(time.perf_counter() - started, 1)}


def million(count: int, folder: Path) -> dict[str, float]:
    """Seconds to put an embedding, to open a store of `count`, to read one of them at random and keep within limits."""
    store = EmbeddingStore(folder, KEY)
    digests = [array_digest(np.array([number])) for number in range(count)]
    started = time.perf_counter()
    for digest in digests[:200]:
        store.put(digest, torch.zeros(SHAPE))
    put = (time.perf_counter() - started) / 200
    link(store, digests[200:])
    started = time.perf_counter()
    store = EmbeddingStore(folder, KEY)
    opened = time.perf_counter() - started
    rng, started = np.random.default_rng(0), time.perf_counter()
    for number in rng.integers(0, count, 2000):
        store[digests[number]].sum()
    read = (time.perf_counter() - started) / 2000
    table = Path("/proc/self/maps")
    maps = len(table.read_text().splitlines()) if table.exists() else 0
    return {
        "embeddings": count,
        "put_s": round(put, 4),
        "open_s": round(opened, 4),
        "read_s": round(read, 4),
        "maps": maps,
    }


def main() -> None:
    """Measure, print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--store", type=int, default=1_000_000)
    parser.add_argument("--pass", dest="one", type=int, help="one pass over so many images, in this process")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.one:
            print(json.dumps(pass_over(args.one, Path(folder))))
            return
        # Each in a process of its own: what one pass leaves in the allocator would hide what the next one takes.
        command = [sys.executable, __file__, "--pass"]
        passes = [json.loads(subprocess.check_output([*command, str(count)], text=True)) for count in args.images]
        print(json.dumps({"pass": passes, "store": million(args.store, Path(folder))}))


if __name__ == "__main__":
    main()
