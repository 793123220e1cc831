"""The exponential moving average of the weights: where training wobbles, it is better than the last step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class ExponentialMovingAverage:
    """Exponential moving average of the weights of a model that train.

    Args:
        model: its weights, as they are, are where the average starts.
        decay: the share that stays at each step; 0.98 remembers about 50 steps, 0 is the weights themselves.
    Source: Polyak and Juditsky, SIAM J. Control Optim. 1992; as a moving average, Tarvainen and Valpola, NeurIPS 2017.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.weights = {name: weight.clone() for name, weight in self._trained()}

    @torch.no_grad()
    def update(self) -> None:
        """Call after each step of the optimiser."""
        for name, weight in self._trained():
            self.weights[name].lerp_(weight, 1 - self.decay)

    def load(self, weights: dict[str, Tensor]) -> None:
        """Go on from an average that was saved."""
        for name, weight in weights.items():
            self.weights[name].copy_(weight)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside the block the model has the averaged weights, afterwards its own again."""
        own = {name: weight.clone() for name, weight in self._trained()}
        self.model.load_state_dict(self.weights, strict=False)
        try:
            yield
        finally:
            self.model.load_state_dict(own, strict=False)

    def _trained(self) -> list[tuple[str, Tensor]]:
        return [(name, weight.detach()) for name, weight in self.model.named_parameters() if weight.requires_grad]
