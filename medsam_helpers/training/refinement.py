"""How a batch is prompted, and the clicks that refine its answer: SAM's iterative training."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from medsam_helpers.geometry import grid_to_model
from medsam_helpers.prompts import correcting_click, deepest_pixel, mask_to_boxes
from medsam_helpers.training.recipes import PromptKind, Recipe


def planned(recipe: Recipe, seed: int, epoch: int, number: int) -> tuple[PromptKind, list[bool]]:
    """How a batch is prompted first, and of each round of refinement whether it brings a new click.

    The draw depends on (seed, epoch, number of the batch) alone: all processes do the same, and so does a resumed run.

    Source: Kirillov et al., Segment Anything, ICCV 2023, appendix A: clicks from the region of the error, the logits
        before as a prompt, and rounds that bring these alone.
    """
    rng = np.random.default_rng([seed, epoch, number, 10**6])  # and not as an example is drawn
    kind = recipe.prompts[rng.integers(len(recipe.prompts))]
    rounds = 0 if kind == "none" else rng.integers(recipe.rounds + 1)
    return kind, [bool(rng.random() >= recipe.mask_only) for _ in range(rounds)]


def first_clicks(kind: PromptKind, mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Clicks (K, 2) xy and labels (K,), 1 on a mask (H, W) bool that is not empty, of a kind that has some."""
    centre = kind == "box+centre"
    clicks = deepest_pixel(mask)[None].astype(int) if centre else rng.choice(np.argwhere(mask))[None, ::-1]
    if kind in ("several", "box+points"):
        x0, y0, x1, y1 = mask_to_boxes(mask)[0]
        clicks = np.concatenate([clicks, rng.uniform((x0, y0), (x1, y1), (2, 2)).astype(int)])
    return clicks, mask[clicks[:, 1], clicks[:, 0]].astype(np.float32)


def with_clicks(
    prompts: dict[str, Tensor],
    masks: np.ndarray,
    targets: np.ndarray,
    model_size: int,
    rngs: Sequence[np.random.Generator],
) -> dict[str, Tensor]:
    """The prompts of B examples with a click more each, on its largest mistake; where there is none, on the lesion.

    `masks` and `targets` are (B, S, S) bool, the answers and what is right; of each example one `rng` draws the pixel.
    """
    rows = [
        correcting_click(mask, target, rng) or correcting_click(np.zeros_like(target), target, rng)
        for mask, target, rng in zip(masks, targets, rngs, strict=True)
    ]
    clicks = np.array(rows, np.float32)[:, None, None]
    points = grid_to_model(clicks[..., :2], targets.shape[-1], model_size)
    added = {"input_points": torch.from_numpy(points), "input_labels": torch.from_numpy(clicks[..., 2])}
    added = {name: new.to(prompts["image_embeddings"].device) for name, new in added.items()}
    return prompts | {
        name: torch.cat([prompts[name], new], 2) if name in prompts else new for name, new in added.items()
    }
