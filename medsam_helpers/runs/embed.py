"""`embed_cases`: each image through the encoder once, while threads read and resize the next ones."""

import ctypes
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from itertools import islice
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from medsam_helpers.data.case import Case
from medsam_helpers.sam.embeddings import EmbeddingStore
from medsam_helpers.sam.segmenter import Segmenter
from medsam_helpers.training.processes import joined, share_of


def _ahead(function: Callable[[int], Any], indices: Iterable[int], threads: int) -> Iterator[Any]:
    """The function of each index, in order; threads are at the next ones meanwhile, and never far ahead."""
    rest, pool = iter(indices), ThreadPoolExecutor(threads)
    try:
        waiting = deque(pool.submit(function, index) for index in islice(rest, 2 * threads))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(function, index) for index in islice(rest, 1))
    finally:
        pool.shutdown(cancel_futures=True)


@cache
def keep_freed_memory() -> bool:
    """Whether the process keeps large freed blocks for the next request from now on; only glibc can be told to.

    By default it gives each back as soon as it is freed, and the next layer's result pays for fresh pages. The process
    holds on to its peak until it ends. `MEDSAM_KEEP_MEMORY=0` leaves the allocator as it is.
    """
    if os.environ.get("MEDSAM_KEEP_MEMORY") == "0" or os.name != "posix":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # macOS, musl
        return False
    settings = {-4: 0, -1: 2**31 - 1, -2: 64 << 20}  # malloc.h: M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD
    return all(mallopt(option, value) == 1 for option, value in settings.items())


def embed_cases(segmenter: Segmenter, cases: Sequence[Case], show_progress: bool = True) -> tuple[int, float]:
    """Number of images that were encoded into the segmenter's store, and the seconds of encoding, without reading.

    A segmenter without a store is given that of the cache. Each of several processes does its share. The process keeps
    freed memory from then on, see `keep_freed_memory`.
    """
    segmenter.store = store = segmenter.store or EmbeddingStore.for_model(segmenter.info, segmenter.precision)
    transform = segmenter.info.transform
    keep_freed_memory()
    # A GPU encodes quicker than one thread reads, and in batches; a CPU has its hands full with one image.
    threads, at_once = (1, 1) if segmenter.device.type == "cpu" else (os.cpu_count() or 1, 16)
    batch, writing, seconds = dict[str, np.ndarray](), list[Future[None]](), 0.0
    begun = set[str]()  # the same picture may come again before it is written

    def prepared(index: int) -> tuple[str, np.ndarray | None]:
        case = cases[index]
        there = store.holds(case.image_digest)
        return case.image_digest, None if there else transform(case.size_hw).image_to_model(case.image)

    def encode() -> None:
        nonlocal seconds
        started = time.perf_counter()
        images = list(batch.values())
        if segmenter.info.embeds == "pixels":  # the encoder comes later: the image is kept, in uint8
            features = [torch.from_numpy(image.copy()) for image in images]
        else:
            features = [*segmenter.encode(images).half().cpu()]
        seconds += time.perf_counter() - started
        writing.extend(writer.submit(store.put, *pair) for pair in zip(batch, features, strict=True))
        while len(writing) > 4 * at_once:
            writing.pop(0).result()
        batch.clear()

    share = share_of(len(cases))
    bar = tqdm(total=len(share), desc=f"embed ({segmenter.precision})", unit="image", disable=not show_progress)
    with bar, ThreadPoolExecutor(threads) as writer:
        for digest, pixels in _ahead(prepared, share, threads):
            if pixels is not None and digest not in begun:
                begun.add(digest)
                batch[digest] = pixels
            if len(batch) == at_once:
                encode()
            bar.update()
        if batch:
            encode()
        for written in writing:
            written.result()
    return sum(joined([len(begun)])), max(joined([seconds]))
