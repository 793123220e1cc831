"""The way up of a U-Net: from grids of features to the logits of a mask."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """A 3 x 3 convolution, normalised in groups of channels; with stride 2 to half the grid."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.GroupNorm(8, outputs), nn.GELU())


class UNetDecoder(nn.Module):
    """Joins grids of features from the coarsest to the finest, and enlarges that four times.

    Args:
        widths: channels of each grid, the finest first.
    Source: Ronneberger et al., MICCAI 2015.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.up = nn.ModuleList(block(fine + coarse, fine) for fine, coarse in pairwise(widths))
        half = widths[0] // 2
        self.enlarge = nn.Sequential(
            nn.ConvTranspose2d(widths[0], half, 2, 2), nn.GELU(), nn.ConvTranspose2d(half, 1, 2, 2)
        )

    def forward(self, grids: Sequence[Tensor]) -> Tensor:
        """Grids (B, C, h, w), the finest first -> (B, 1, 4 h, 4 w) logits."""
        x = grids[-1]
        for joined, beside in zip(reversed(self.up), reversed(grids[:-1]), strict=True):
            x = joined(torch.cat([F.interpolate(x, beside.shape[-2:], mode="bilinear"), beside], dim=1))
        return self.enlarge(x)
