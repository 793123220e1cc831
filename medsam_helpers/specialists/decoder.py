"""U-Nets on features that are there: the way up from grids of them, and the head that needs no prompt."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD_WIDTHS = (64, 96, 128)  # at the embedding's grid, at half and at a quarter of it


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


class AutomaticHead(nn.Module):
    """A small U-Net from an embedding to the logits of a mask on a grid four times as fine.

    Args:
        channels: of the embedding.
    """

    def __init__(self, channels: int = 256) -> None:
        super().__init__()
        first, middle, last = HEAD_WIDTHS
        self.narrow = nn.Sequential(nn.Dropout2d(0.2), nn.Conv2d(channels, first, 1), block(first, first))
        self.down = nn.ModuleList([block(first, middle, 2), block(middle, last, 2)])
        self.decoder = UNetDecoder(HEAD_WIDTHS)

    def forward(self, embeddings: Tensor) -> Tensor:
        """(B, 256, h, w) embeddings -> (B, 1, 4 h, 4 w) logits."""
        grids = [self.narrow(embeddings)]
        for smaller in self.down:
            grids.append(smaller(grids[-1]))
        return self.decoder(grids)
