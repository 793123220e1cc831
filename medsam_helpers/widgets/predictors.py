"""A `Segmenter` as the box widget's `predict(image, boxes, points)`: each image is encoded once and remembered."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
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
    """Do the work on the one thread that all models of the widgets run on, and wait for it.

    Widget callbacks run on a thread of their own (JupyterLab's subshell) beside the notebook's. Each thread that
    computes with torch gets a team of OpenMP threads, and with more of these than processors they stop waiting for
    each other actively: an answer then takes 65 ms in place of 37 ms on two processors.
    """
    return _MODEL_THREAD.submit(work, *arguments).result()


class EmbeddingCache:
    """The latest embeddings by encoder and image, the least recently used dropped first.

    A fine-tuned decoder and its base have the same encoder weights, so they share an embedding. `lock` lets one thread
    at a time into the models.

    Args:
        size: embeddings kept, 4 MB each.
    """

    def __init__(self, size: int = 16) -> None:
        self.size = size
        self.lock = threading.RLock()
        self.encoded = 0
        """How often an encoder really ran."""
        self._kept: OrderedDict[tuple[str, ...], Embedding] = OrderedDict()
        self._latest: tuple[np.ndarray, str] | None = None

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, segmenter: Segmenter, encoder: str, image: np.ndarray, report: Report | None = None) -> Embedding:
        """The image's embedding, encoded now where it is neither here nor in the segmenter's store.

        Args:
            segmenter: encodes.
            encoder: digest of its encoder's weights.
            image: (H, W, 3) uint8.
            report: is told how far the encoding is.
        """
        with self.lock:
            key = (encoder, segmenter.precision, segmenter.info.pixel_scaling, self._digest(image))
            if key not in self._kept:
                self._kept[key] = self._stored(segmenter, key[-1], image) or self._encode(segmenter, image, report)
            self._kept.move_to_end(key)
            while len(self._kept) > self.size:
                self._kept.popitem(last=False)
            return self._kept[key]

    def _stored(self, segmenter: Segmenter, digest: str, image: np.ndarray) -> Embedding | None:
        if segmenter.store is None or digest not in segmenter.store:
            return None
        return Embedding(segmenter.store[digest].float()[None], segmenter.info.transform(image.shape[:2]))

    def _encode(self, segmenter: Segmenter, image: np.ndarray, report: Report | None) -> Embedding:
        with _reporting(segmenter.model.vision_encoder, report):
            embedding = segmenter.embed(image)
        self.encoded += 1
        return embedding

    def _digest(self, image: np.ndarray) -> str:
        # A large image takes longer to hash than its mask to decode; one that nobody can write to is hashed once.
        if self._latest is not None and self._latest[0] is image and not image.flags.writeable:
            return self._latest[1]
        digest = Case("", image, np.zeros(image.shape[:2], bool)).image_digest
        self._latest = (image, digest)
        return digest


SHARED_CACHE = EmbeddingCache()


class SegmenterPredictor:
    """Makes a `Segmenter` answer as the widget asks.

    Args:
        segmenter: the model.
        source: what `Segmenter.load` would take to load it again, for the call that the widget writes out.
        cache: shared by default with every other predictor of the process.
    """

    def __init__(
        self, segmenter: Segmenter, source: str | Path | None = None, cache: EmbeddingCache | None = None
    ) -> None:
        self.segmenter = segmenter
        self.source = str(source or segmenter.info.name)
        self.cache = SHARED_CACHE if cache is None else cache
        self.encoder = on_model_thread(state_digest, segmenter.model.vision_encoder)

    def prepare(self, image: np.ndarray, report: Report | None = None) -> None:
        """Encode the image before the first prompt comes."""
        on_model_thread(self.cache.get, self.segmenter, self.encoder, image, report)

    def __call__(self, image: np.ndarray, boxes: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Masks (N, H, W) and scores (N,): one a box, or a single one for points alone."""
        return on_model_thread(self._predict, image, boxes, points)

    def _predict(self, image: np.ndarray, boxes: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with self.cache.lock:
            embedding = self.cache.get(self.segmenter, self.encoder, image)
            answers = [self.segmenter.predict(embedding, **call) for call in prompt_calls(boxes, points)]
        masks, scores = zip(*((answer.masks[:, 0], answer.scores[:, 0]) for answer in answers), strict=True)
        return np.concatenate(masks), np.concatenate(scores)

    def code(self, boxes: np.ndarray, points: np.ndarray) -> str:
        """Python that gives the same mask of an `image`."""
        calls = [", ".join(f"{k}={_written(v)}" for k, v in call.items()) for call in prompt_calls(boxes, points)]
        lines = [f"    segmenter.predict(embedding, {call})," for call in calls]
        return "\n".join(
            [
                f'segmenter = Segmenter.load({self.source!r}, precision="{self.segmenter.precision}")',
                "embedding = segmenter.embed(image)",
                "answers = [",
                *lines,
                "]",
                "mask = np.concatenate([answer.masks[:, 0] for answer in answers]).any(axis=0)",
            ]
        )


def prompt_calls(boxes: np.ndarray, points: np.ndarray) -> list[dict[str, Any]]:
    """The keywords of `Segmenter.predict`, a dict a call, that answer all boxes and points.

    A point refines the box that it lies in, the smallest of several; or else the nearest box. Points without any box
    are one prompt together.

    Args:
        boxes: (N, 4) xyxy.
        points: (K, 3) of x, y, label.
    """
    if not len(points):
        return [{"boxes": boxes}]
    if not len(boxes):
        return [{"points": points[:, :2], "labels": points[:, 2]}]
    owners = np.array([owner(point, boxes) for point in points])
    calls = []
    for index, box in enumerate(boxes):
        own = points[owners == index]
        refined = {"points": own[:, :2], "labels": own[:, 2]} if len(own) else {}
        calls.append({"boxes": box, **refined})
    return calls


def owner(point: np.ndarray, boxes: np.ndarray) -> int:
    """Index of the box that a point refines: see `prompt_calls`."""
    x, y = point[0] + 0.5, point[1] + 0.5
    away = np.hypot(
        np.maximum(np.maximum(boxes[:, 0] - x, x - boxes[:, 2]), 0),
        np.maximum(np.maximum(boxes[:, 1] - y, y - boxes[:, 3]), 0),
    )
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return int(np.lexsort((area, away))[0])


def _written(values: np.ndarray) -> str:
    return f"np.array({np.round(np.asarray(values, np.float64), 2).tolist()})"


@contextmanager
def _reporting(encoder: nn.Module, report: Report | None) -> Iterator[None]:
    """Tells `report` each time that one of the encoder's layers is done."""
    stacks = (module for module in encoder.modules() if isinstance(module, nn.ModuleList | nn.Sequential))
    layers = [layer for stack in stacks for layer in stack]
    done = 0

    def count(*_: Any) -> None:
        nonlocal done
        done += 1
        report(min(1.0, done / len(layers)))

    hooks = [layer.register_forward_hook(count) for layer in layers] if report else []
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
