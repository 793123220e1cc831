"""A prompt on one frame, masks on all: `track`, and `BoxTracker`, which follows with any model of single images."""

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
_MARGIN = 0.03  # by which each side of a box is moved outward, a share of the box's own size: the lesion has moved


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
    if not prompts or not set(prompts) <= set(range(len(frames))):
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
        for order in (range(first, len(frames)), range(first, -1, -1)):
            for number, answer in zip(order, tracker(steps(order)), strict=True):
                if order.step > 0 or number < first:
                    bar.update()
                    yield number, answer


class BoxTracker:
    """Follows a lesion with a model of single images: each frame is asked with the box round the mask before.

    What the encoder saw in the prompted mask is kept, one vector, and compared with what it sees in each answer. Where
    that is too little alike, the lesion is looked for where the frame is most like it; and if it is not there either,
    it is lost, and the box waits. Nothing else is kept, so a long video takes no more memory than a short one.

    Args:
        segmenter: without tta.
        least: the cosine, -1 to 1, below which an answer is another thing than the lesion.
    Source: after Zhang et al., Personalize Segment Anything Model with One Shot, ICLR 2024; arXiv 2305.03048.
    """

    def __init__(self, segmenter: Segmenter, least: float = 0.35) -> None:
        self.segmenter, self.least = segmenter, least

    def __call__(self, steps: Steps) -> Iterator[Tracked]:
        """See `Tracker`; the score is the cosine."""
        box, meant = np.zeros(4), torch.zeros(0)  # the first step has a prompt
        for image, prompt in steps:
            view = self.segmenter.embed(image)
            if prompt is not None:
                mask = prompt if prompt.dtype == np.bool_ else self._ask(view, prompt)
                if not mask.any():
                    raise PromptError("the prompt gives an empty mask: there is nothing to follow")
                meant = appearance(view, mask)
                answer = Tracked(mask, 1.0)
            else:
                answer = self._rated(view, box, meant)
                if answer.score < self.least:
                    answer = max(answer, self._rated(view, _moved(view, box, meant), meant), key=lambda one: one.score)
            if answer.score < self.least:
                answer = Tracked(np.zeros_like(answer.mask), answer.score)
            else:
                box = _grown(mask_to_boxes(answer.mask)[0], answer.mask.shape)
            yield answer

    def _ask(self, view: Embedding, box: np.ndarray) -> np.ndarray:
        return self.segmenter.predict(view, boxes=box).masks[0, 0]

    def _rated(self, view: Embedding, box: np.ndarray, meant: Tensor) -> Tracked:
        mask = self._ask(view, box)
        return Tracked(mask, float(appearance(view, mask) @ meant) if mask.any() else -1.0)


def _features(view: Embedding) -> Tensor:
    """(C, h, w) the embedding without its padding and without what all places of the frame have in common."""
    features = view.features[0].float().cpu()
    height, width = (int(np.ceil(side)) for side in view.transform.covered_hw(features.shape[-1]))
    features = features[:, :height, :width]
    return features - features.mean(dim=(1, 2), keepdim=True)


def appearance(view: Embedding, mask: np.ndarray) -> Tensor:
    """(C,) of length 1: the mean of an embedding inside a mask (H, W), less that of the whole frame."""
    features = _features(view)
    inside = F.adaptive_avg_pool2d(view.transform.mask_to_target(mask)[None], view.features.shape[-1])[0]
    height, width = features.shape[1:]
    return F.normalize((features * inside[:height, :width]).sum(dim=(1, 2)), dim=0)


def _moved(view: Embedding, box: np.ndarray, meant: Tensor) -> np.ndarray:
    """(4,) the box about the place of the frame that is most like what was meant."""
    alike = torch.einsum("c,chw->hw", meant, F.normalize(_features(view), dim=0))
    alike = F.avg_pool2d(alike[None], 5, stride=1, padding=2, count_include_pad=False)[0]
    row, column = divmod(int(alike.argmax()), alike.shape[1])
    side, model_size = view.features.shape[-1], view.transform.model_size
    middle = view.transform.to_original(grid_to_model(np.array([column, row]), side, model_size))
    half, (height, width) = (box[2:] - box[:2]) / 2, view.transform.original_hw
    corner = np.clip(middle - half, 0, np.array([width, height]) - 2 * half)
    return np.concatenate([corner, corner + 2 * half])


def _grown(box: np.ndarray, hw: tuple[int, ...]) -> np.ndarray:
    """(4,) the box, each side moved outward by a margin, inside the image."""
    more = _MARGIN * (box[2:] - box[:2])
    return np.clip(box + np.concatenate([-more, more]), 0, np.tile(hw[::-1], 2))
