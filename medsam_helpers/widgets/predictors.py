"""Models as the box widget asks them, `predict(image, boxes, points)`; a `Segmenter` encodes each image once."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from medsam_helpers.data.case import array_digest
from medsam_helpers.errors import ConfigError
from medsam_helpers.sam.loading import state_digest
from medsam_helpers.sam.segmenter import Embedding, Segmenter

Predict = Callable[[np.ndarray, np.ndarray, np.ndarray], Any]  # `predict(image, boxes, points)`: see `BoxPrompt`
Model = str | Path | Segmenter | Predict
"""A name or folder that `Segmenter.load` takes, a `Segmenter`, or a function `predict(image, boxes, points)`."""
Models = Model | Mapping[str, Model]

_T = TypeVar("_T")
_MODEL_THREAD = ThreadPoolExecutor(1, thread_name_prefix="box-prompt-model")


def as_predict(model: Model) -> Predict:
    """The model as a function `predict(image, boxes, points)`, loaded if it is a name; `ConfigError`: it is none."""
    if isinstance(model, str | Path):
        return SegmenterPredictor(on_model_thread(Segmenter.load, model), source=model)
    if isinstance(model, Segmenter):
        return SegmenterPredictor(model)
    if not callable(model):
        raise ConfigError("predict must be a Segmenter, a function of (image, boxes, points), or a dict of them")
    return model


def by_name(predict: Models) -> dict[str, Predict]:
    """One model or several by name, as `as_predict` gives them; a `ConfigError` where there is none."""
    if not isinstance(predict, Mapping):
        name = predict.info.name if isinstance(predict, Segmenter) else getattr(predict, "__name__", "model")
        predict = {name: predict}
    if not predict:
        raise ConfigError("there is no model: the dict is empty")
    return {name: as_predict(each) for name, each in predict.items()}


def on_model_thread(work: Callable[..., _T], *arguments: Any) -> _T:
    """Result of work that is done on the one thread on which all models of the widgets run.

    Each thread that computes with torch gets a team of OpenMP threads; with one for the widget's callbacks and one for
    the notebook's cells an answer took 65 ms in place of 37.
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

    def get(self, segmenter: Segmenter, encoder: str, image: np.ndarray) -> Embedding:
        """Embedding of an image (H, W, 3) uint8: from this cache, from the segmenter's store, or computed now.

        `encoder` is the digest of the encoder's weights.
        """
        # A large image takes longer to hash than its mask to decode; one that nobody can write to is hashed once.
        if self._latest is None or self._latest[0] is not image or image.flags.writeable:
            self._latest = (image, array_digest(image))
        digest = self._latest[1]
        key = (encoder, segmenter.precision, segmenter.info.pixel_scaling, segmenter.views, digest)
        embedding = self._kept.pop(key, None)
        if embedding is None and segmenter.store is not None and not segmenter.tta and digest in segmenter.store:
            embedding = Embedding(segmenter.store[digest].float()[None], segmenter.info.transform(image.shape[:2]))
        if embedding is None:
            embedding = segmenter.embed(image)
            self.encoded += 1
        self._kept[key] = embedding
        while len(self._kept) > self.size:
            del self._kept[next(iter(self._kept))]
        return embedding


SHARED_CACHE = EmbeddingCache()


class SegmenterPredictor:
    """A `Segmenter` as a function `predict(image, boxes, points)` that the widget can call.

    `source` is what `Segmenter.load` would take to load it again, for the call that the widget writes out.
    """

    def __init__(self, segmenter: Segmenter, source: str | Path = "", cache: EmbeddingCache = SHARED_CACHE) -> None:
        self.segmenter = segmenter
        self.source = str(source or segmenter.info.name)
        self.cache = cache
        self.encoder = on_model_thread(state_digest, segmenter.model.vision_encoder)
        self.proposes = not segmenter.needs_prompt
        self._embedding: Embedding | None = None  # of the latest image
        self._logits: dict[str, Tensor] = {}  # of the latest answers to it, by all that was asked so far

    def prepare(self, image: np.ndarray) -> None:
        """Encode the image before the first prompt comes."""
        on_model_thread(self.cache.get, self.segmenter, self.encoder, image)

    def __call__(
        self, image: np.ndarray, boxes: np.ndarray, points: np.ndarray, proposed: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Masks (N, H, W) and scores (N,): one a box, or a single one for points alone or for a proposal."""
        return on_model_thread(self._predict, image, self.rounds(boxes, points, proposed))

    def rounds(self, boxes: np.ndarray, points: np.ndarray, proposed: bool) -> list[list[dict[str, Any]]]:
        """As `prompt_rounds`; with `tta`, whose answers cannot be refined, the last of each alone."""
        found = prompt_rounds(boxes, points, proposed and self.proposes)
        return [calls[-1:] for calls in found] if self.segmenter.tta else found

    def _predict(self, image: np.ndarray, rounds: list[list[dict[str, Any]]]) -> tuple[np.ndarray, np.ndarray]:
        embedding = self.cache.get(self.segmenter, self.encoder, image)
        before = self._logits if embedding is self._embedding else {}
        self._embedding, self._logits = embedding, {}
        masks, scores = list[np.ndarray](), list[np.ndarray]()
        for calls in rounds:
            asked, logits = "", None
            for call in calls:
                asked += str({name: value.tolist() for name, value in call.items()})
                if call is calls[-1] or asked not in before:  # the last one's mask is wanted too
                    answer = self.segmenter.predict(embedding, **call, mask_logits=logits)
                    before[asked] = answer.logits
                self._logits[asked] = logits = before[asked]
            masks.append(answer.masks[:, 0])
            scores.append(answer.scores[:, 0])
        return np.concatenate(masks), np.concatenate(scores)


def prompt_rounds(boxes: np.ndarray, points: np.ndarray, proposed: bool = False) -> list[list[dict[str, Any]]]:
    """What answers boxes (N, 4) and points (K, 3) of x, y, label: keywords of `Segmenter.predict`, in rounds.

    A point refines the box that it lies in, the smallest of several; or else the nearest box. Points without any box
    are one prompt together, and refine the proposal where there is one.

    Returns:
        A list for each mask, or for all boxes without a point: its first prompt, then the same with a click more each
        time, to be asked with the logits before as `mask_logits`.
    """
    if not len(boxes):
        # Without a proposal to begin with, that is the first click on the lesion.
        return [_refined({}, points)[0 if proposed else 1 + int(points[:, 2].argmax()) :]]
    if not len(points):
        return [[{"boxes": boxes}]]
    owners = np.array([min(range(len(boxes)), key=lambda index: _rank(boxes[index], point)) for point in points])
    return [_refined({"boxes": box[None]}, points[owners == index]) for index, box in enumerate(boxes)]


def _refined(first: dict[str, Any], points: np.ndarray) -> list[dict[str, Any]]:
    """The first prompt, then the same with one point, with two, ..."""
    given = [points[:count] for count in range(1, len(points) + 1)]
    return [first, *(first | {"points": some[:, :2], "labels": some[:, 2]} for some in given)]


def _rank(box: np.ndarray, point: np.ndarray) -> tuple[float, float]:
    """How far the point's pixel lies outside the box, and the area of the box."""
    (x0, y0, x1, y1), (x, y) = box, point[:2] + 0.5
    return np.hypot(max(x0 - x, 0, x - x1), max(y0 - y, 0, y - y1)), (x1 - x0) * (y1 - y0)
