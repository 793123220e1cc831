"""The decoder's two enlarging layers, in the form that CPUs are quick at."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import SamModel


class Upscale(nn.ConvTranspose2d):
    """A transposed convolution whose kernel is its stride: one matrix product, then a reshuffle of pixels.

    The same weights and the same answer as `nn.ConvTranspose2d` to rounding; the gradient of the latter is where a CPU
    spends a fifth of the decoder's training step.
    """

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(B, C, H, W) -> (B, O, 2 H, 2 W)."""
        size = self.stride[0]
        weight = self.weight.flatten(1).t()[..., None, None]
        return F.pixel_shuffle(F.conv2d(x, weight, self.bias.repeat_interleave(size * size)), size)


def with_quick_upscale(model: SamModel) -> SamModel:
    """The model with both enlarging layers of its decoder replaced (in place); names and weights stay."""
    for name in ("upscale_conv1", "upscale_conv2"):
        layer = model.mask_decoder.get_submodule(name)
        kernel, stride = layer.kernel_size, layer.stride
        if kernel != stride or kernel[0] != kernel[1] or layer.padding != (0, 0):
            raise ValueError(f"{name}: kernel {kernel} and stride {stride} must be equal squares, without padding")
        quick = Upscale(layer.in_channels, layer.out_channels, kernel, stride)
        quick.load_state_dict(layer.state_dict())
        setattr(model.mask_decoder, name, quick)
    return model
