"""What a training step is fed with: cached embeddings, boxes, targets."""

import math
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import scipy  # its modules load when they are first used
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.contrib.concurrent import thread_map

from medsam_helpers.data.case import Case
from medsam_helpers.data.views import view_of
from medsam_helpers.errors import ConfigError, DataError
from medsam_helpers.evaluation.predictors import fill_box
from medsam_helpers.geometry import ImageTransform, grid_to_model
from medsam_helpers.prompts import jitter_boxes, mask_to_boxes, whole_image
from medsam_helpers.sam.embeddings import EmbeddingStore, Resident
from medsam_helpers.training.recipes import Part, PromptKind, Recipe
from medsam_helpers.training.refinement import first_clicks


class Packed:
    """A bool array in an eighth of its memory."""

    def __init__(self, array: np.ndarray) -> None:
        self.shape, self.bits = array.shape, np.packbits(array)

    def array(self) -> np.ndarray:
        """A bool array, as it was."""
        return np.unpackbits(self.bits, count=math.prod(self.shape)).reshape(self.shape).view(np.bool_)


_View = tuple[str, ImageTransform, np.ndarray, list[Packed], Packed | None]
"""Of a view of a case: digest of its image, transform, boxes (N, 4), a target (h, w) for each box, and where nothing
counts, (h, w)."""
_DRAWS = 20  # of a box that misses its lesion, before it is taken as it is


class PromptedCases:
    """Training examples: a cached embedding, a box jittered anew each epoch, the target in the mask space.

    The draw of epoch e and case i depends on (seed, e, i) alone, as resuming needs. Set `epoch` before each pass.

    Args:
        cases: decoded once, here; only boxes and small targets are kept.
        store: holds the embeddings of all their views.
        transform_of: gives an image size's `ImageTransform`.
        recipe: says what is drawn.
        seed: of order, view, lesion and jitter.
    Raises:
        DataError: an embedding is missing.
        ConfigError: the recipe's `augment` changes pixels, and embeddings are stored.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        store: EmbeddingStore,
        transform_of: Callable[[tuple[int, int]], ImageTransform],
        recipe: Recipe,
        seed: int = 0,
        show_progress: bool = False,
    ) -> None:
        self.features: EmbeddingStore | Resident = store
        self.recipe, self.seed, self.epoch = recipe, seed, 0
        self.model_size = transform_of((1, 1)).model_size
        self.augment: Part | None = recipe.augment if callable(recipe.augment) else None
        if recipe.augment is True:
            from medsam_helpers.specialists.augmentation import augmented  # needed by few

            self.augment = augmented
        self.digests: list[str] = []
        self._views: list[list[_View]] = []

        def seen(case: Case) -> _View:
            if case.image_digest not in store:
                raise DataError(f"{case.name}: no embedding of this image in {store.folder}; embed the data first")
            transform, healthy = transform_of(case.size_hw), recipe.needs_no_prompt and not case.mask.any()
            boxes = whole_image(case.size_hw) if healthy else mask_to_boxes(case.regions, recipe.box_mode)
            if recipe.box_mode == "labels" and case.labels is not None:
                masks = [case.labels == label for label in np.unique(case.labels[case.labels > 0])]
            else:
                masks = [case.mask & fill_box(box, case.size_hw) for box in boxes]  # what each box asks for
            targets = [transform.mask_to_target(mask, recipe.loss_size).numpy() > 0 for mask in masks]
            nowhere = None
            if case.ignored is not None:
                ignored = transform.mask_to_target(case.ignored, recipe.loss_size).numpy() > 0
                targets, nowhere = [target & ~ignored for target in targets], Packed(ignored)
            kept = [number for number, target in enumerate(targets) if target.any() or healthy]
            return case.image_digest, transform, boxes[kept], [Packed(targets[number]) for number in kept], nowhere

        def prepared(case: Case) -> tuple[str, str, int, list[_View]]:
            counted = recipe.oversampling > 1 and case.mask.any()
            times = recipe.oversampling if counted and len(mask_to_boxes(case.mask, "components")) > 1 else 1
            return case.name, case.digest, times, [seen(view_of(case, view)) for view in recipe.views]

        vanished = []
        bar = {"desc": "reading cases", "leave": False, "disable": None if show_progress else True}
        for name, digest, times, views in thread_map(lambda index: prepared(cases[index]), range(len(cases)), **bar):
            if all(len(boxes) for _, _, boxes, _, _ in views):
                self.digests += [digest] * times
                self._views += [views] * times
            else:
                vanished.append(name)
        if vanished:
            told = f"left out of training, since their lesions vanish on the loss's grid: {', '.join(vanished)}"
            warnings.warn(f"{told}; train on a finer one (loss_size=1024, --loss-size 1024), or crop", stacklevel=2)
        self._some_ignored = any(ignored is not None for views in self._views for *_, ignored in views)
        if recipe.augment is True and self._views and store[self._views[0][0][0]].shape[0] != 3:
            raise ConfigError("augment changes pixels, and this model is trained on cached embeddings: use views")
        if self.augment and self._some_ignored:
            raise ConfigError("augment moves the lesion, and not the pixels that count nowhere: use views")

    def __len__(self) -> int:
        return len(self.digests)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """The example prompted with a box, see `example`."""
        return self.example(index)

    def draw(self, index: int, *correction: int) -> np.random.Generator:
        """What the example is drawn with in this epoch, or the click of one of its corrections, from 1."""
        return np.random.default_rng([self.seed, self.epoch, index, *correction])

    def example(self, index: int, kind: PromptKind = "box") -> dict[str, Tensor]:
        """`image_embeddings` (256, 64, 64), the prompt in the model space, `target` (1, h, w) bool.

        The prompt is `input_boxes` (1, 4), or `input_points` (1, K, 2) with `input_labels` (1, K), or both, or none, or
        with the box `input_masks` (1, 256, 256).
        Where a case has pixels that count nowhere, all have `ignored` (1, h, w) bool.
        """
        rng = self.draw(index)
        digest, transform, boxes, targets, ignored = self._views[index][rng.integers(len(self._views[index]))]
        chosen = rng.integers(len(boxes))
        features = self.features[digest]
        asked = targets if kind == "none" else [targets[chosen]]
        target = torch.from_numpy(np.logical_or.reduce([each.array() for each in asked]))
        if self.augment:
            features, target = self._augmented(features.float(), target, transform, rng)
        example = {"image_embeddings": features}
        if kind.startswith("box"):
            # What was augmented is a picture of its own: the box goes round its target.
            box = None if self.augment else boxes[[chosen]]
            example["input_boxes"] = torch.from_numpy(self._drawn(box, target, transform, rng))
        if kind == "mask":
            moves = rng.uniform(-1, 1, 2) * self.recipe.jitter_1024 * len(target) / 1024
            moved = scipy.ndimage.shift(target.cpu().numpy(), moves, order=0)
            rough = moved if moved.any() else target.cpu().numpy()
            example["input_boxes"] = self._to_model(mask_to_boxes(rough), target)
            logits = 20.0 * torch.from_numpy(rough).float() - 10.0  # about as sure as an answer
            example["input_masks"] = F.adaptive_avg_pool2d(logits[None], transform.mask_size)
        elif kind not in ("box", "none"):
            clicks, labels = first_clicks(kind, target.cpu().numpy(), rng)
            example["input_points"] = self._to_model(clicks, target)[None]
            example["input_labels"] = torch.from_numpy(labels)[None]
        if self._some_ignored:
            nowhere = torch.zeros_like(target) if ignored is None else torch.from_numpy(ignored.array())
            example["ignored"] = nowhere[None]
        return example | {"target": target[None]}

    def _to_model(self, prompts: np.ndarray, target: Tensor) -> Tensor:
        return torch.from_numpy(grid_to_model(prompts, target.shape[-1], self.model_size))

    def _drawn(
        self, box: np.ndarray | None, target: Tensor, transform: ImageTransform, rng: np.random.Generator
    ) -> np.ndarray:
        """(1, 4) a box, or that round the target, jittered, in the model space."""
        jitter, side = self.recipe.jitter_1024, target.shape[-1]
        if box is None:
            drawn = jitter_boxes(mask_to_boxes(target.cpu().numpy()), (side, side), jitter, rng)
            return grid_to_model(drawn, side, self.model_size)
        for _ in range(_DRAWS):
            drawn = jitter_boxes(box, transform.original_hw, jitter, rng)
            x0, y0, x1, y1 = transform.to_grid(drawn, side)[0]
            if target[int(y0) : math.ceil(y1), int(x0) : math.ceil(x1)].any():  # it may miss a small lesion
                break
        return transform.to_model(drawn)

    def _augmented(
        self, features: Tensor, target: Tensor, transform: ImageTransform, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Features and target, changed by `augment`: of pixels the picture without its padding, at its own size."""
        assert self.augment
        if len(features) != 3:
            return self.augment(features, target, rng)
        (height, width), side = transform.resized_hw, features.shape[-1]
        lesion = F.interpolate(target[None, None].float(), (side, side))[0, 0, :height, :width] > 0.5
        picture, lesion = self.augment(features[:, :height, :width], lesion.to(features.device), rng)
        padding = (0, side - width, 0, side - height)
        smaller = F.adaptive_avg_pool2d(F.pad(lesion.cpu().float(), padding)[None], target.shape[-1])[0] > 0.5
        # A lesion that got too small for the grid is no target.
        return (F.pad(picture, padding), smaller) if smaller.any() else (features, target)

    def batch(self, indices: Sequence[int], device: torch.device, kind: PromptKind = "box") -> dict[str, Tensor]:
        """Several examples on a device, one a row, in float32."""
        examples = [self.example(index, kind) for index in indices]
        stacked = {name: torch.stack([one[name] for one in examples]) for name in examples[0]}
        if device.type == "cuda":  # from pinned memory a copy waits for nobody
            stacked = {name: rows if rows.is_cuda else rows.pin_memory() for name, rows in stacked.items()}
        return {name: rows.to(device, non_blocking=True).float() for name, rows in stacked.items()}

    def order(self) -> list[int]:
        """A permutation of the examples that depends on (seed, epoch) alone."""
        return np.random.default_rng([self.seed, self.epoch]).permutation(len(self)).tolist()
