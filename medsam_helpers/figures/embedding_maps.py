"""Maps of an embedding over its image: principal components, and similarity to one pixel."""

from __future__ import annotations

import math

import numpy as np
import torch

from medsam_helpers.geometry import check_points
from medsam_helpers.sam.segmenter import Embedding


def principal_components(embedding: Embedding, count: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Maps of an embedding's principal components, and the share of the variance that each holds.

    Padding does not count; a component's largest weight is positive.

    Args:
        embedding: features (1, C, h, w).
        count: how many, the strongest first.
    Returns:
        Maps (count, H, W), original space, 0 to 1 from their 2nd to their 98th percentile; shares (count,).
    Source: Pearson, Philosophical Magazine 2(11), 1901.
    """
    features = embedding.features[0].float().cpu()
    height, width = map(math.ceil, embedding.transform.covered_hw(features.shape[-1]))
    cells = features[:, :height, :width].flatten(1).T
    mean = cells.mean(dim=0)
    _, strengths, directions = torch.linalg.svd(cells - mean, full_matrices=False)
    directions = directions[:count]
    largest = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True))
    directions = directions * largest.sign()
    maps = torch.einsum("kc,chw->khw", directions, features - mean[:, None, None])
    enlarged = embedding.transform.logits_to_original(maps[None])[0].numpy()
    low, high = np.percentile(enlarged, [2, 98], axis=(1, 2), keepdims=True)
    shares = strengths**2 / (strengths**2).sum()
    return np.clip((enlarged - low) / np.maximum(high - low, 1e-12), 0, 1), shares[:count].numpy()


def cosine_similarity_map(embedding: Embedding, point_xy: np.ndarray) -> np.ndarray:
    """(H, W) cosine between the feature at a pixel and the feature at every other, -1 to 1, original space.

    Args:
        embedding: of the image.
        point_xy: (2,) pixel indices, original space.
    Raises:
        PromptError: the point lies outside the image.
    """
    features = torch.nn.functional.normalize(embedding.features[0].float().cpu(), dim=0)
    centre = check_points(point_xy, embedding.transform.original_hw)[0] + 0.5
    column, row = embedding.transform.to_grid(centre, features.shape[-1]).astype(int)
    cosine = torch.einsum("c,chw->hw", features[:, row, column], features)
    return embedding.transform.logits_to_original(cosine[None, None])[0, 0].numpy()
