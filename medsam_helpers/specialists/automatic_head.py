"""A head that finds lesions without a prompt, on the embedding that SAM's decoder is prompted on."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (64, 96, 128)  # at the embedding's grid, at half and at a quarter of it


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.GroupNorm(8, outputs), nn.GELU())


class AutomaticHead(nn.Module):
    """A small U-Net from an embedding to the logits of a mask on a grid four times as fine.

    Args:
        channels: of the embedding.
    Source: Ronneberger et al., MICCAI 2015, after a trial on Kvasir-SEG.
    """

    def __init__(self, channels: int = 256) -> None:
        super().__init__()
        fine, middle, coarse = WIDTHS
        self.narrow = nn.Sequential(nn.Dropout2d(0.2), nn.Conv2d(channels, fine, 1), _block(fine, fine))
        self.down = nn.ModuleList([_block(fine, middle, 2), _block(middle, coarse, 2)])
        self.up = nn.ModuleList([_block(coarse + middle, middle), _block(middle + fine, fine)])
        self.enlarge = nn.Sequential(
            nn.ConvTranspose2d(fine, fine // 2, 2, 2), nn.GELU(), nn.ConvTranspose2d(fine // 2, 1, 2, 2)
        )

    def forward(self, embeddings: Tensor) -> Tensor:
        """(B, 256, h, w) embeddings -> (B, 1, 4 h, 4 w) logits."""
        grids = [self.narrow(embeddings)]
        for smaller in self.down:
            grids.append(smaller(grids[-1]))
        x = grids.pop()
        for larger in self.up:
            beside = grids.pop()
            x = larger(torch.cat([F.interpolate(x, beside.shape[-2:], mode="bilinear"), beside], dim=1))
        return self.enlarge(x)
