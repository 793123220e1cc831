"""`Segmenter`: embed an image once, prompt it many times."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from medsam_helpers.data.case import Case
from medsam_helpers.data.reading import as_rgb
from medsam_helpers.data.views import TURNS, view_of
from medsam_helpers.device import autocast, default_device, effective_precision
from medsam_helpers.errors import PromptError, ShapeError
from medsam_helpers.files import find_checkpoint
from medsam_helpers.geometry import ImageTransform, check_boxes, check_points, mirror
from medsam_helpers.prompts import correcting_click
from medsam_helpers.sam.embeddings import EmbeddingStore
from medsam_helpers.sam.loading import load_sam, model_info, pixel_values
from medsam_helpers.sam.model import Promptable
from medsam_helpers.sam.tuned import CARD_FILE, load_checkpoint

_Prompt = np.ndarray | None
_PROMPTS_AT_ONCE = 16  # each takes about 0.1 GB inside the decoder


@dataclass(frozen=True)
class Embedding:
    """What is kept of an image: `features` (1, 256, 64, 64) float32, of SAM 2 (1, 1024, 64, 64); with tta two views."""

    features: Tensor
    transform: ImageTransform
    mirrored: Tensor | None = None


@dataclass(frozen=True)
class Prediction:
    """The answer to N prompts, M masks each (1, or 3 with `multimask`); with `tta` that of both views."""

    masks: np.ndarray  # (N, M, H, W) bool, original space
    scores: np.ndarray  # (N, M), the model's own guess of each mask's IoU
    logits: Tensor  # (N, M, h, w) float32, mask space, of the image as it is: may be the next prompt's `mask_logits`

    def best(self) -> np.ndarray:
        """(N, H, W) bool: of each prompt's masks the one with the highest score."""
        return self.masks[np.arange(len(self.masks)), self.scores.argmax(axis=1)]


class Segmenter:
    """A model that takes images and prompts of the original space, and gives masks of it.

    Args:
        model: from `load_sam` or `load_checkpoint`, or a `SamModel` of your own.
        device: default: the best there is.
        precision: of the encoder, "auto", "fp32", "bf16" or "fp16". The decoder always runs in float32.
        store: where `predict_case` looks for embeddings first.
        tta: test-time augmentation: the mean of the answers to the image and to its mirror image, in twice the time.
    """

    def __init__(
        self,
        model: Promptable,
        device: str | torch.device | None = None,
        precision: str = "auto",
        store: EmbeddingStore | None = None,
        tta: bool = False,
    ) -> None:
        self.device = torch.device(device) if device else default_device()
        self.precision = effective_precision(precision, self.device)
        self.model = model.to(self.device).eval()  # type: ignore[arg-type]  # the wrapper of SamModel.to hides `self`
        self.info = model_info(model)
        self.store, self.tta = store, tta
        self._boxes_only = getattr(self.model.config, "boxes_only", False)
        self.views = ("as-is", "mirrored") if tta else ("as-is",)  # those of an image that are embedded

    @classmethod
    def load(cls, name_or_checkpoint: str | Path, **options: Any) -> Self:
        """A segmenter from a model's name or path, a decoder checkpoint's folder, or the name of a released one."""
        fine_tuned = (find_checkpoint(name_or_checkpoint) / CARD_FILE).is_file()
        return cls((load_checkpoint if fine_tuned else load_sam)(name_or_checkpoint), **options)

    @property
    def needs_prompt(self) -> bool:
        """Whether it has to be prompted; with an automatic head it finds the lesions by itself, and so may a U-Net."""
        return not hasattr(self.model, "automatic_head") and getattr(self.model, "sees_box", True)

    def embed(self, image: Any) -> Embedding:
        """The embedding of an image that `as_rgb` understands, (H, W, 3) uint8 say: the slow part, once an image."""
        image = as_rgb(image)
        first, *mirrored = (self.encode([TURNS[view](image)]) for view in self.views)
        return Embedding(first, self.info.transform(image.shape[:2]), *mirrored)

    @torch.inference_mode()
    def encode(self, images: Sequence[np.ndarray]) -> Tensor:
        """(B, 256, 64, 64) float32 features of B images, of any sizes; `ShapeError` where there is none."""
        if not images:
            raise ShapeError("there is no image to encode")
        pixels = torch.cat([pixel_values(image, self.info, self.device) for image in images])
        with autocast(self.device, self.precision):
            return self.model.get_image_embeddings(pixels).float()

    @torch.inference_mode()
    def predict(
        self,
        image: Any,
        *,
        boxes: _Prompt = None,
        points: _Prompt = None,
        labels: _Prompt = None,
        mask_logits: Tensor | None = None,
        multimask: bool = False,
    ) -> Prediction:
        """Masks for N prompts on one image; without one the automatic head's mask of all lesions.

        Args:
            image: (H, W, 3) uint8 or what else `as_rgb` understands, or its `Embedding` when it is prompted more than
                once.
            boxes: (N, 4) half-open xyxy, original space; a single (4,) counts as N = 1.
            points: (N, K, 2) xy, original space; (K, 2) and (2,) count as N = 1. With boxes, a refinement of each.
            labels: (N, K) or (K,), 1 foreground, 0 background; all 1 when left out.
            mask_logits: (N, 1, h, w) logits of the mask space: an earlier answer to refine.
            multimask: three masks a prompt, for prompts as ambiguous as a single click; otherwise one.
        Raises:
            PromptError: no prompt where one is needed, a malformed one, one outside the image, `mask_logits` with tta.
            ShapeError: boxes, points, labels and masks disagree in number.
        """
        embedding = image if isinstance(image, Embedding) else self.embed(image)
        transform = embedding.transform
        if embedding.mirrored is not None and mask_logits is not None:
            raise PromptError("mask_logits refine the answer to one view: use a Segmenter without tta for them")
        if boxes is None and points is not None and self._boxes_only:
            self._boxes_only = False  # said once
            told = f"{self.info.name} was trained with boxes only: a click alone may give nothing, or the whole image"
            warnings.warn(f"{told}; draw a box", stacklevel=2)
        prompts = self.prompt_inputs(transform, boxes, points, labels, mask_logits)
        logits, scores = self.decode(embedding.features, prompts, multimask)
        # Lazily, a prompt at a time: at the original size they may be large.
        large: Iterable[Tensor] = map(transform.logits_to_original, logits.split(1))
        if embedding.mirrored is not None:
            width = transform.original_hw[1]
            boxes, points = (None if prompt is None else mirror(prompt, width) for prompt in (boxes, points))
            prompts = self.prompt_inputs(transform, boxes, points, labels, None)
            others, other_scores = self.decode(embedding.mirrored, prompts, multimask)
            scores = (scores + other_scores) / 2
            # Added up at the original size: in the mask space the padding lies on the right of both.
            turned_back = (transform.logits_to_original(other).flip(-1) for other in others.split(1))
            large = map(torch.add, large, turned_back)
        masks = torch.cat([one > 0 for one in large])
        return Prediction(masks.cpu().numpy(), scores.cpu().numpy(), logits.cpu())

    @torch.inference_mode()
    def decode(self, features: Tensor, prompts: dict[str, Tensor], multimask: bool = False) -> tuple[Tensor, Tensor]:
        """Logits (N, M, h, w) float32 and scores (N, M) of N prompts, each on its features, or all on the same.

        Args:
            features: (N or 1, 256, 64, 64) float.
            prompts: as `SamModel` takes them, in the model space, one a row: it takes one mask an image. Or none.
        """
        count, outputs = len(next(iter(prompts.values()), features)), []
        for first in range(0, count, _PROMPTS_AT_ONCE):
            part = {name: value[first : first + _PROMPTS_AT_ONCE].to(self.device) for name, value in prompts.items()}
            seen = features if len(features) == 1 else features[first : first + _PROMPTS_AT_ONCE]
            seen = seen.to(self.device).expand(min(count - first, _PROMPTS_AT_ONCE), -1, -1, -1)
            outputs.append(self.model(image_embeddings=seen, multimask_output=multimask, **part))
        logits, scores = ([one[name][:, 0].float() for one in outputs] for name in ("pred_masks", "iou_scores"))
        return torch.cat(logits), torch.cat(scores)

    def predict_case(self, case: Case, boxes: _Prompt = None, points: _Prompt = None) -> tuple[np.ndarray, np.ndarray]:
        """Masks (N, H, W) and scores (N,) of boxes (N, 4), with points (N, 2), one a box; without both see `predict`.

        This is the `Predictor` that `evaluate` asks for. The embedding is taken from the store where it is there.
        """
        points = None if points is None else points[:, None]
        prediction = self.predict(self._embedding_of(case), boxes=boxes, points=points)
        return prediction.masks[:, 0], prediction.scores[:, 0]

    def predict_clicks(self, case: Case, clicks: int) -> tuple[np.ndarray, np.ndarray]:
        """Masks (clicks, H, W) and scores (clicks,) after each click of a simulated user, the logits before going in.

        Each click goes to the deepest pixel of the largest mistake. After one without a mistake the mask stays.
        """
        embedding, mask, points = self._embedding_of(case), np.zeros(case.size_hw, bool), list[list[float]]()
        logits, score, answers = None, np.nan, []
        for _ in range(clicks):
            if click := correcting_click(mask, case.mask):
                points.append(click)
                xy, labels = np.split(np.array(points)[None], [2], axis=-1)
                prediction = self.predict(embedding, points=xy, labels=labels[..., 0], mask_logits=logits)
                mask, score = case.counted(prediction.masks[0, 0]), prediction.scores[0, 0]
                logits = prediction.logits
            answers.append((mask, score))
        masks, scores = zip(*answers, strict=True)
        return np.array(masks), np.array(scores)

    def _embedding_of(self, case: Case) -> Embedding:
        """From the store where it is there; `StoreError` where that is another encoder's."""
        if self.store is not None:
            self.store.check(self.info)

        def features(seen: Case) -> Tensor:
            if self.store is not None and seen.image_digest in self.store:
                return self.store[seen.image_digest].float()[None]
            return self.encode([seen.image])

        first, *mirrored = (features(view_of(case, view)) for view in self.views)
        return Embedding(first, self.info.transform(case.size_hw), *mirrored)

    def prompt_inputs(
        self,
        transform: ImageTransform,
        boxes: _Prompt = None,
        points: _Prompt = None,
        labels: _Prompt = None,
        mask_logits: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The prompts as `SamModel` takes them, one a row of the batch, in the model space."""
        inputs, hw = dict[str, Tensor](), transform.original_hw
        if boxes is not None:
            inputs["input_boxes"] = torch.from_numpy(transform.to_model(check_boxes(boxes, hw)))[:, None]
        if points is not None:
            checked = check_points(points, hw).reshape(-1, *np.atleast_2d(points).shape[-2:])
            inputs["input_points"] = torch.from_numpy(transform.to_model(checked))[:, None]
            labels = np.ones(checked.shape[:2]) if labels is None else np.asarray(labels)
            if labels.size != checked[..., 0].size or not np.isin(labels, (0, 1)).all():
                raise PromptError(f"labels must be 0 or 1, one a point: {labels.shape} for points {checked.shape}")
            inputs["input_labels"] = torch.as_tensor(labels, dtype=torch.int64).reshape(len(checked), 1, -1)
        elif labels is not None:
            raise PromptError("labels without points mean nothing: pass points too")
        if not inputs and (self.needs_prompt or mask_logits is not None):
            raise PromptError("no prompt: pass boxes, or points (a mask alone only refines one of these)")
        if mask_logits is not None:
            size = self.info.mask_size
            if mask_logits.shape[1:] != (1, size, size) or not mask_logits.isfinite().all():
                raise ShapeError(f"mask_logits must be finite, (N, 1, {size}, {size}), is {tuple(mask_logits.shape)}")
            inputs["input_masks"] = mask_logits.float()
        if len({len(value) for value in inputs.values()}) > 1:
            counts = {name: len(value) for name, value in inputs.items()}
            raise ShapeError(f"each prompt needs one of each kind, got {counts}")
        return inputs
