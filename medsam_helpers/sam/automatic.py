"""A head that finds lesions without a prompt, on the embedding that the decoder is prompted on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medsam_helpers.errors import ConfigError
from medsam_helpers.sam.model import Promptable, Sam
from medsam_helpers.specialists.decoder import UNetDecoder, block

WIDTHS = (64, 96, 128)  # at the embedding's grid, at half and at a quarter of it


class AutomaticHead(nn.Module):
    """A small U-Net from an embedding to the logits of a mask on a grid four times as fine.

    Args:
        channels: of the embedding.
    """

    def __init__(self, channels: int = 256) -> None:
        super().__init__()
        first, middle, last = WIDTHS
        self.narrow = nn.Sequential(nn.Dropout2d(0.2), nn.Conv2d(channels, first, 1), block(first, first))
        self.down = nn.ModuleList([block(first, middle, 2), block(middle, last, 2)])
        self.decoder = UNetDecoder(WIDTHS)

    def forward(self, embeddings: Tensor) -> Tensor:
        """(B, 256, h, w) embeddings -> (B, 1, 4 h, 4 w) logits."""
        grids = [self.narrow(embeddings)]
        for smaller in self.down:
            grids.append(smaller(grids[-1]))
        return self.decoder(grids)


def add_automatic_head(model: Promptable, seed: int = 0) -> None:
    """Give a model an untrained automatic head, the part `automatic_head`, where it has none.

    Args:
        model: changed in place; its other answers stay as they are.
        seed: of the head's first weights.
    Raises:
        ConfigError: it is not the SAM that `load_sam` returns, but a plain one of transformers, or a U-Net.
    """
    if not isinstance(model, Sam):
        raise ConfigError(f"a {type(model).__name__} cannot have an automatic head: take what load_sam returns")
    if not hasattr(model, "automatic_head"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model.automatic_head = AutomaticHead(model.prompt_encoder.hidden_size)
        model.config.automatic_head = True
