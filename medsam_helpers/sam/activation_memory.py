"""How much memory a training step keeps from its forward pass until its backward pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def kept_for_backward(model: nn.Module, forward: Callable[[], Tensor]) -> int:
    """Bytes of the results that autograd holds on to after a forward pass.

    They grow with the batch. Weights and buffers are not counted, and what several layers keep is counted once. A model
    on torch's `meta` device takes no memory; as attention kernels differ, the number is good to some 10 %.

    Args:
        model: whose weights and buffers are left out.
        forward: runs it; the result is what `backward` would be called on.

    >>> layer = nn.Linear(3, 2)
    >>> kept_for_backward(layer, lambda: layer(torch.ones(5, 3)))  # its input: 5 x 3 numbers of 4 bytes
    60
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
