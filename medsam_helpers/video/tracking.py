"""A prompt on one frame, masks on all: `track`, and `BoxTracker`, which follows with any model of single images."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from medsam_helpers.data.case import Case
from medsam_helpers.data.reading import as_rgb, read_image
from medsam_helpers.errors import DataError, PromptError
from medsam_helpers.geometry import grid_to_model
from medsam_helpers.prompts import mask_to_boxes
from medsam_helpers.sam.segmenter import Embedding, Segmenter


class Tracked(NamedTuple):
    """A tracker's answer to a frame: an empty mask says that the lesion is lost, or out of sight."""

    mask: np.ndarray  # (H, W) bool
    score: float  # how sure the tracker is that this is the lesion; what it means depends on the tracker


Steps: TypeAlias = Iterable[tuple[np.ndarray, np.ndarray | None]]
"""Images (H, W, 3) uint8 in the order of tracking, each with its prompt: a box (4,) xyxy or a mask (H, W) bool, as the
first one has, or None."""
Tracker: TypeAlias = Callable[[Steps], Iterator[Tracked]]
Frame: TypeAlias = Any  # a picture file's `Path`, a `Case`, or an image that `as_rgb` understands
_MARGIN = 0.03  # by which each side of a box is moved outward, a share of the box's own size
_NEAREST, _SHARPNESS = 10, 0.07  # see `labels_by_likeness`


def frame_image(frame: Frame) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a frame: of a picture file, a case, or an image in memory."""
    if isinstance(frame, str | Path):
        return read_image(frame)
    return frame.image if isinstance(frame, Case) else as_rgb(frame)


def track(
    tracker: Tracker, frames: Sequence[Frame], prompts: Mapping[int, np.ndarray], *, show_progress: bool = True
) -> Iterator[tuple[int, Tracked]]:
    """Number and answer of each frame: from the first prompt on to the end, then from there back to the beginning.

    Args:
        tracker: a `BoxTracker` or a `MemoryTracker`.
        frames: of one size; each is read when its turn comes, so a list of files takes no memory.
        prompts: by the frame's number, from 0; a box (4,) or a mask (H, W) bool. A later one is a correction.
    Raises:
        PromptError: no prompt, or one on a frame that is not there.
        DataError: a frame of another size than the first, or one that cannot be read.
    """
    if not prompts or not all(0 <= number < len(frames) for number in prompts):
        raise PromptError(f"prompts on frames {sorted(prompts)}: give one at least, on frames 0 to {len(frames) - 1}")
    first, size = min(prompts), frame_image(frames[min(prompts)]).shape

    def steps(numbers: Sequence[int]) -> Steps:
        for number in numbers:
            image = frame_image(frames[number])
            if image.shape != size:
                sizes = f"{image.shape[1]} x {image.shape[0]}, frame {first} {size[1]} x {size[0]}"
                raise DataError(f"frame {number} is {sizes}: a video has one size")
            yield image, prompts.get(number)

    with tqdm(total=len(frames), desc="track", unit="frame", disable=not show_progress) as bar:
        for order in (range(first, len(frames)), range(first, -1, -1))[: 1 + (first > 0)]:
            for number, answer in zip(order, tracker(steps(order)), strict=True):
                if order.step > 0 or number < first:
                    bar.update()
                    yield number, answer


class BoxTracker:
    """Follows a lesion with a model of single images: the mask of a frame gives the box for the next.

    Of the prompted frames it keeps what the encoder saw, and which places of it are lesion. Each place of a later frame
    takes the mean label of the places there that are most like it. The model is asked twice, with the box of the mask
    before and with that of the labels, each beside the logits of that mask; the answer that agrees better with the
    labels counts. Where none does, the lesion is lost, or out of sight, and found again by the labels. A long video
    takes no more memory than a short one.

    Args:
        segmenter: of a SAM, without tta.
        least: the overlap (IoU) of answer and labels below which the lesion is lost.
    Source: labels by likeness as in Jabri et al., NeurIPS 2020; arXiv 2006.14613.
    """

    def __init__(self, segmenter: Segmenter, least: float = 0.25) -> None:
        self.segmenter, self.least = segmenter, least

    def __call__(self, steps: Steps) -> Iterator[Tracked]:
        """See `Tracker`; the score is the overlap."""
        kept: list[tuple[Tensor, Tensor]] = []  # of each prompted frame its features and the labels of its places
        box, logits = np.zeros(4), None  # the first step has a prompt, which gives a box
        for image, prompt in steps:
            view = self.segmenter.embed(image)
            features = place_features(view)
            if prompt is not None:
                found = None if prompt.dtype == np.bool_ else self.segmenter.predict(view, boxes=prompt)
                answer = Tracked(found.masks[0, 0] if found else prompt, 1.0)
                if not answer.mask.any():
                    raise PromptError("the prompt gives an empty mask: there is nothing to follow")
                kept.append((features, share_of_places(view, answer.mask)))
                logits = found.logits if found else None
            else:
                labels = labels_by_likeness(features, kept)
                boxes = np.stack([box, *_boxes_of(view, labels)])
                before = None if logits is None else logits.expand(len(boxes), -1, -1, -1)
                found = self.segmenter.predict(view, boxes=boxes, mask_logits=before)
                scores = [_overlap(view, mask, labels) for mask in found.masks[:, 0]]
                best = int(np.argmax(scores))
                answer, logits = Tracked(found.masks[best, 0], scores[best]), found.logits[best, None]
            if answer.mask.any() and answer.score >= self.least:
                box = _widened(view, mask_to_boxes(answer.mask)[0])
            else:
                answer, logits = Tracked(np.zeros_like(answer.mask), answer.score), None
            yield answer


def place_features(view: Embedding) -> Tensor:
    """(C, h, w) the embedding without its padding, of length 1 at each place."""
    height, width = (math.ceil(side) for side in view.transform.covered_hw(view.features.shape[-1]))
    return F.normalize(view.features[0, :, :height, :width].float().cpu(), dim=0)


def share_of_places(view: Embedding, mask: np.ndarray) -> Tensor:
    """(h, w) the share of each place of the embedding that lies in a mask (H, W)."""
    side = view.features.shape[-1]
    height, width = (math.ceil(covered) for covered in view.transform.covered_hw(side))
    return F.adaptive_avg_pool2d(view.transform.mask_to_target(mask)[None], side)[0, :height, :width]


def labels_by_likeness(features: Tensor, kept: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """(h, w) for each place the label, 0 to 1, of the `_NEAREST` kept places most like it, the likest weighing most."""
    known, labels = torch.cat([one.flatten(1) for one, _ in kept], 1), torch.cat([one.flatten() for _, one in kept])
    alike, where = (features.flatten(1).T @ known).topk(_NEAREST, dim=1)
    weights = torch.softmax(alike / _SHARPNESS, dim=1)
    return (weights * labels[where]).sum(dim=1).reshape(features.shape[1:])


def _boxes_of(view: Embedding, labels: Tensor) -> list[np.ndarray]:
    """The box (4,) round the largest region of places that are lesion, original space; none where there is no such."""
    found = labels.numpy() > 0.5
    if not found.any():
        return []
    cells = mask_to_boxes(found, "components")[0]
    box = view.transform.to_original(grid_to_model(cells, view.features.shape[-1], view.transform.model_size))
    return [_widened(view, box)]


def _overlap(view: Embedding, mask: np.ndarray, labels: Tensor) -> float:
    """The IoU of a mask (H, W) and labels (h, w), where places may belong to both in part."""
    places = share_of_places(view, mask)
    return float(torch.minimum(places, labels).sum() / torch.maximum(places, labels).sum().clamp(min=1e-6))


def _widened(view: Embedding, box: np.ndarray) -> np.ndarray:
    """(4,) the box, each side moved outward by a margin, since the lesion moves; inside the image."""
    more, (height, width) = _MARGIN * (box[2:] - box[:2]), view.transform.original_hw
    low = np.clip(box[:2] - more, 0, (width - 1, height - 1))
    return np.concatenate([low, np.clip(box[2:] + more, low + 1, (width, height))])
