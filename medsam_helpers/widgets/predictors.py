"""A `Segmenter` as the box widget's `predict(image, boxes, points)`: each image is encoded once and remembered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import nn

from medsam_helpers.data.case import Case
from medsam_helpers.sam.loading import state_digest
from medsam_helpers.sam.segmenter import Embedding, Segmenter

Report = Callable[[float], None]
"""Is told the share that is done, from 0 to 1."""

_T = TypeVar("_T")
_MODEL_THREAD = ThreadPoolExecutor(1, thread_name_prefix="box-prompt-model")


def on_model_thread(work: Callable[..., _T], *arguments: Any) -> _T:
    """Result of work that is done on the one thread on which all models of the widgets run.

    Widget callbacks run on another thread (JupyterLab's subshell) than the notebook's cells. Each thread that computes
    with torch gets a team of OpenMP threads; with more of these than processors an answer took 65 ms in place of 37.
    """
    return _MODEL_THREAD.submit(work, *arguments).result()


class EmbeddingCache:
    """The latest `size` embeddings (4 MB each) by encoder and image; the least recently used is dropped first.

    A fine-tuned decoder and its base have the same encoder weights, so they share an embedding.
    """

    def __init__(self, size: int = 16) -> None:
        self.size = size
        self.encoded = 0  # how often an encoder really ran
        self._kept: dict[tuple, Embedding] = {}
        self._latest: tuple[np.ndarray, str] | None = None

    def get(self, segmenter: Segmenter, encoder: str, image: np.ndarray, report: Report | None = None) -> Embedding:
        """Embedding of an image (H, W, 3) uint8, encoded now where it is neither here nor in the segmenter's store.

        `encoder` is the digest of the encoder's weights; `report` is told how far the encoding is.
        """
        digest = self._digest(image)
        key = (encoder, segmenter.precision, segmenter.info.pixel_scaling, segmenter.views, digest)
        embedding = self._kept.pop(key, None)
        if embedding is None and segmenter.store is not None and not segmenter.tta and digest in segmenter.store:
            embedding = Embedding(segmenter.store[digest].float()[None], segmenter.info.transform(image.shape[:2]))
        if embedding is None:
            with _reporting(segmenter.model.vision_encoder, report):
                embedding = segmenter.embed(image)
            self.encoded += 1
        self._kept[key] = embedding
        while len(self._kept) > self.size:
            del self._kept[next(iter(self._kept))]
        return embedding

    def _digest(self, image: np.ndarray) -> str:
        # A large image takes longer to hash than its mask to decode; one that nobody can write to is hashed once.
        if self._latest is None or self._latest[0] is not image or image.flags.writeable:
            self._latest = (image, Case("", image, np.zeros(image.shape[:2], bool)).image_digest)
        return self._latest[1]


SHARED_CACHE = EmbeddingCache()


class SegmenterPredictor:
    """A `Segmenter` as a function `predict(image, boxes, points)` that the widget can call.

    Args:
        segmenter: the model.
        source: what `Segmenter.load` would take to load it again, for the call that the widget writes out.
        cache: shared by default with every other predictor of the process.
    """

    def __init__(self, segmenter: Segmenter, source: str | Path = "", cache: EmbeddingCache = SHARED_CACHE) -> None:
        self.segmenter = segmenter
        self.source = str(source or segmenter.info.name)
        self.cache = cache
        self.encoder = on_model_thread(state_digest, segmenter.model.vision_encoder)

    def prepare(self, image: np.ndarray, report: Report | None = None) -> None:
        """Encode the image before the first prompt comes."""
        on_model_thread(self.cache.get, self.segmenter, self.encoder, image, report)

    def __call__(self, image: np.ndarray, boxes: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Masks (N, H, W) and scores (N,): one a box, or a single one for points alone."""
        return on_model_thread(self._predict, image, boxes, points)

    def _predict(self, image: np.ndarray, boxes: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        embedding = self.cache.get(self.segmenter, self.encoder, image)
        answers = [self.segmenter.predict(embedding, **call) for call in prompt_calls(boxes, points)]
        masks, scores = ([getattr(answer, part)[:, 0] for answer in answers] for part in ("masks", "scores"))
        return np.concatenate(masks), np.concatenate(scores)

    def code(self, boxes: np.ndarray, points: np.ndarray) -> str:
        """Python that gives the same mask of an `image`."""
        lines = ""
        for call in prompt_calls(boxes, points):
            values = (f"{key}=np.array({value.astype(float).round(2).tolist()})" for key, value in call.items())
            lines += f"    segmenter.predict(embedding, {', '.join(values)}),\n"
        return (
            f'segmenter = Segmenter.load({self.source!r}, precision="{self.segmenter.precision}")\n'
            f"embedding = segmenter.embed(image)\nanswers = [\n{lines}]\n"
            "mask = np.concatenate([answer.masks[:, 0] for answer in answers]).any(axis=0)"
        )


def prompt_calls(boxes: np.ndarray, points: np.ndarray) -> list[dict[str, Any]]:
    """The keywords of `Segmenter.predict`, a dict a call, that answer boxes (N, 4) and points (K, 3) of x, y, label.

    A point refines the box that it lies in, the smallest of several; or else the nearest box. Points without any box
    are one prompt together.
    """
    if not len(points):
        return [{"boxes": boxes}]
    if not len(boxes):
        return [_clicks(points)]
    low, high, centres = boxes[:, :2], boxes[:, 2:], points[:, None, :2] + 0.5
    outside = np.maximum(np.maximum(low - centres, centres - high), 0)  # (K, N, 2)
    away, area = np.hypot(outside[..., 0], outside[..., 1]), np.prod(high - low, axis=1)
    owners = np.lexsort((np.broadcast_to(area, away.shape), away), axis=1)[:, 0]
    return [{"boxes": box, **_clicks(points[owners == index])} for index, box in enumerate(boxes)]


def _clicks(points: np.ndarray) -> dict[str, np.ndarray]:
    return {"points": points[:, :2], "labels": points[:, 2]} if len(points) else {}


@contextmanager
def _reporting(encoder: nn.Module, report: Report | None) -> Iterator[None]:
    """Tells `report` each time that one of the encoder's layers is done."""
    layers = [
        layer for stack in encoder.modules() if isinstance(stack, nn.ModuleList | nn.Sequential) for layer in stack
    ]
    done = count(1)

    def tell(*_: Any) -> None:
        if report:
            report(min(1.0, next(done) / len(layers)))

    hooks = [layer.register_forward_hook(tell) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
