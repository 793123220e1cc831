"""Pictures and tables of how SAM works: prompts and answers, maps over an image, sizes."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from torch import Tensor, nn

from medsam_helpers.data.case import Case
from medsam_helpers.figures.cases import COLORS, HALO, show_case
from medsam_helpers.geometry import check_points
from medsam_helpers.sam.model import PARTS, Promptable
from medsam_helpers.sam.segmenter import Embedding


def show_points(ax: Axes, points: np.ndarray, labels: Sequence[int] | None = None) -> Axes:
    """The axes with clicks (K, 2) xy, original space: a plus for label 1 (the default), a cross for 0."""
    points = np.reshape(points, (-1, 2))
    style: dict[str, Any] = {"color": COLORS["prompt"], "markersize": 11, "markeredgewidth": 2.2, "path_effects": HALO}
    for (x, y), label in zip(points, [1] * len(points) if labels is None else labels, strict=True):
        ax.plot(x, y, marker="+" if label else "x", **style)
    return ax


def show_map(ax: Axes, image: np.ndarray, values: np.ndarray, title: str = "", strength: float = 0.65) -> AxesImage:
    """The drawn map, for a colour bar; it lies over the greys of its image (H, W, 3) uint8, with opacity `strength`.

    Its values are (H, W) float, or (H, W, 3) float in [0, 1] as colours.
    """
    ax.imshow(image.mean(axis=2), cmap="gray", vmin=0, vmax=255)
    drawn = ax.imshow(values, cmap="viridis", alpha=strength)
    ax.set_title(title, fontsize=10)
    ax.set_axis_off()
    return drawn


def answers(
    case: Case,
    masks: Mapping[str, np.ndarray],
    *,
    boxes: np.ndarray | None = None,
    points: np.ndarray | None = None,
    labels: Sequence[int] | None = None,
    note: str = "",
) -> Figure:
    """A figure with one panel an answer, all with the same truth and prompts.

    Masks are title -> (H, W) bool; boxes (N, 4) xyxy, points (K, 2) xy and their labels (K,) are drawn in each panel.
    """
    figure = Figure(figsize=(2.5 * len(masks), 2.75), layout="constrained")
    for ax, (title, mask) in zip(figure.subplots(1, len(masks), squeeze=False)[0], masks.items(), strict=True):
        show_case(ax, case.image, truth=case.mask, prediction=mask, boxes=boxes, title=title)
        if points is not None:
            show_points(ax, points, labels)
    figure.suptitle(note, fontsize=11)
    return figure


def parameter_table(model: Promptable) -> pd.DataFrame:
    """One row a part and a total: parameters, how many of them train, share of the whole.

    The positional embedding, which image and prompts share, counts with the prompt encoder.
    """
    parts = [part for part in PARTS if hasattr(model, part)]
    named = [(part, p) for part in parts for p in model.get_submodule(part).parameters()]
    rows = [(part, p.numel(), p.numel() * p.requires_grad) for part, p in named]
    table = pd.DataFrame(rows, columns=["part", "parameters", "trainable"]).groupby("part", sort=False).sum()
    table.loc["total"] = table.sum()
    table["share"] = table["parameters"] / table.loc["total", "parameters"]
    return table


def kept_for_backward(model: nn.Module, forward: Callable[[], Tensor]) -> int:
    """Bytes of the results that autograd holds on to after a forward pass: they grow with the batch.

    Weights and buffers of the model are not counted. `forward` runs it and gives what `backward` would be called on. On
    torch's `meta` device it takes no memory; as attention kernels differ, the number is good to some 10 %.
    """
    own = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()  # held until we have counted: it holds the graph, and the graph holds the storages
    del result
    return sum(kept.values())


def principal_components(embedding: Embedding) -> tuple[np.ndarray, np.ndarray]:
    """Maps of an embedding's three strongest principal components, and the share (3,) of the variance that each holds.

    The maps are (3, H, W), original space, 0 to 1 from their 2nd to their 98th percentile. Padding does not count; a
    component's largest weight is positive.

    Source: Pearson, Philosophical Magazine 2(11), 1901.
    """
    features = embedding.features[0].float().cpu()
    height, width = map(math.ceil, embedding.transform.covered_hw(features.shape[-1]))
    cells = features[:, :height, :width].flatten(1).T
    mean = cells.mean(dim=0)
    _, strengths, directions = torch.linalg.svd(cells - mean, full_matrices=False)
    directions = directions[:3]
    largest = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True))
    directions = directions * largest.sign()
    maps = torch.einsum("kc,chw->khw", directions, features - mean[:, None, None])
    enlarged = embedding.transform.logits_to_original(maps[None])[0].numpy()
    low, high = np.percentile(enlarged, [2, 98], axis=(1, 2), keepdims=True)
    shares = strengths**2 / (strengths**2).sum()
    return np.clip((enlarged - low) / np.maximum(high - low, 1e-12), 0, 1), shares[:3].numpy()


def cosine_similarity_map(embedding: Embedding, point_xy: np.ndarray) -> np.ndarray:
    """(H, W) cosine, -1 to 1, between the features at a pixel (2,) xy of the original space and at every other.

    `PromptError`: the point lies outside the image.
    """
    features = torch.nn.functional.normalize(embedding.features[0].float().cpu(), dim=0)
    centre = check_points(point_xy, embedding.transform.original_hw)[0] + 0.5
    column, row = embedding.transform.to_grid(centre, features.shape[-1]).astype(int)
    cosine = torch.einsum("c,chw->hw", features[:, row, column], features)
    return embedding.transform.logits_to_original(cosine[None, None])[0, 0].numpy()
