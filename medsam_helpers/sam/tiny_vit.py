"""TinyViT, the image encoder of MobileSAM and LiteMedSAM: a small hybrid of convolutions and windowed attention.

Source: Wu et al., ECCV 2022, arXiv 2207.10666; MobileSAM: Zhang et al., arXiv 2306.14289. Module names follow the
published checkpoints, so that these load with `strict=True`.
"""

from collections import OrderedDict
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.checkpoint import checkpoint
from transformers import SamVisionConfig
from transformers.models.sam.modeling_sam import SamLayerNorm, SamVisionEncoderOutput

# Of each stage: width, depth, heads, window.
STAGES = ((64, 2, 2, 7), (128, 2, 4, 7), (160, 6, 5, 14), (320, 2, 10, 7))
REDUCTION_STRIDES = (2, 2, 1)  # after stages 0, 1, 2: the last stage keeps SAM's 64 x 64 grid


class ConvNorm(nn.Sequential):
    """Convolution without bias, then batch normalisation; one convolution after `fuse`."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.c = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(outputs)

    def fuse(self) -> None:
        """Fold the normalisation into the convolution: the same function in inference, in one pass over memory."""
        if isinstance(self.bn, nn.BatchNorm2d):
            self.c, self.bn = fuse_conv_bn_eval(self.c.eval(), self.bn.eval()), nn.Identity()


class Bottleneck(nn.Module):
    """Pointwise, depthwise 3 x 3 and pointwise convolution; with `residual` the input is added."""

    def __init__(self, inputs: int, hidden: int, outputs: int, stride: int = 1, residual: bool = False) -> None:
        super().__init__()
        self.residual = residual
        self.conv1 = ConvNorm(inputs, hidden)
        self.conv2 = ConvNorm(hidden, hidden, kernel=3, stride=stride, groups=hidden)
        self.conv3 = ConvNorm(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))
        return F.gelu(x + y) if self.residual else y


class WindowAttention(nn.Module):
    """Self-attention inside one window, with a learned bias for each relative offset |dy|, |dx|."""

    offsets: Tensor

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        y, x = torch.cartesian_prod(torch.arange(window), torch.arange(window)).T
        offsets = (y[:, None] - y).abs() * window + (x[:, None] - x).abs()
        self.register_buffer("offsets", offsets, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(windows, tokens, width) -> the same shape."""
        windows, tokens, width = x.shape
        # Each head's query, key and value lie side by side in the checkpoint, head after head.
        qkv = self.qkv(self.norm(x)).view(windows, tokens, self.heads, 3, width // self.heads)
        query, key, value = qkv.permute(3, 0, 2, 1, 4)
        # A mask of four dimensions is what lets the CPU take its fused attention kernel.
        bias = self.attention_biases[None, :, self.offsets].to(query.dtype)
        if query.requires_grad and x.device.type == "cpu":  # the fused kernel's way back takes more than twice as long
            x = (query * query.shape[-1] ** -0.5 @ key.mT + bias).softmax(-1).to(value.dtype) @ value
        else:
            x = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.proj(x.transpose(1, 2).reshape(windows, tokens, width))


class Block(nn.Module):
    """Windowed attention, a depthwise convolution that crosses window borders, and an MLP. Grid is (B, H, W, C)."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.attn = WindowAttention(width, heads, window)
        self.local_conv = ConvNorm(width, width, kernel=3, groups=width)
        up, down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.mlp = nn.Sequential(OrderedDict(norm=nn.LayerNorm(width), fc1=up, act=nn.GELU(), fc2=down))

    def forward(self, x: Tensor) -> Tensor:
        (batch, height, width, channels), size = x.shape, self.window
        # Padded with zeros to whole windows; the padding takes part in attention, as it did in training.
        padded = F.pad(x, (0, 0, 0, -width % size, 0, -height % size))
        rows, columns = padded.shape[1] // size, padded.shape[2] // size
        windows = padded.view(batch, rows, size, columns, size, channels).transpose(2, 3)
        attended = self.attn(windows.reshape(-1, size * size, channels))
        attended = attended.view(batch, rows, columns, size, size, channels).transpose(2, 3).reshape(padded.shape)
        x = x + attended[:, :height, :width]
        # A (B, H, W, C) grid seen as (B, C, H, W) is what the convolutions call channels_last: no copy here.
        x = self.local_conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x + self.mlp(x)


class Stage(nn.Module):
    """Stage 0: bottleneck convolutions; 1 to 3: transformer blocks. Then, but for the last, a change of width."""

    def __init__(self, index: int) -> None:
        super().__init__()
        width, depth, heads, window = STAGES[index]
        self.attends = index > 0
        self.blocks = nn.Sequential()
        for _ in range(depth):
            self.blocks.append(Block(width, heads, window) if index else Bottleneck(width, 4 * width, width, 1, True))
        self.downsample: nn.Module = nn.Identity()
        if index < len(REDUCTION_STRIDES):
            wider = STAGES[index + 1][0]
            self.downsample = Bottleneck(width, wider, wider, REDUCTION_STRIDES[index])

    def forward(self, x: Tensor) -> Tensor:
        # Transformer blocks take a grid (B, H, W, C).
        x = self.blocks(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) if self.attends else self.blocks(x)
        return self.downsample(x)


class TinyViT(nn.Module):
    """Image encoder with the interface of `SamVisionEncoder`, for an input side of 1024 (MobileSAM) or 256."""

    def __init__(self, config: SamVisionConfig) -> None:
        super().__init__()
        self.config, self.gradient_checkpointing = config, False
        channels = config.output_channels
        assert isinstance(config.image_size, int)
        # A quarter of the grid from a 1024 input, the full grid from a 256 input.
        kernel, stride = (3, 2) if config.image_size > 256 else (1, 1)
        wide, half = STAGES[0][0], STAGES[0][0] // 2
        seq = nn.Sequential(ConvNorm(3, half, kernel, stride), nn.GELU(), ConvNorm(half, wide, kernel, stride))
        self.patch_embed = nn.Sequential(OrderedDict(seq=seq))
        self.layers = nn.ModuleList(Stage(index) for index in range(4))
        self.neck: nn.Module = nn.Sequential(
            nn.Conv2d(STAGES[-1][0], channels, 1, bias=False),
            SamLayerNorm(channels, data_format="channels_first"),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            SamLayerNorm(channels, data_format="channels_first"),
        )

    def get_input_embeddings(self) -> nn.Module:
        """What `SamVisionEncoder` calls so; peft asks for it."""
        return self.patch_embed

    def fuse(self) -> Self:
        """This encoder with every batch normalisation folded into its convolution, channels_last (in place)."""
        for module in self.modules():
            if isinstance(module, ConvNorm):
                module.fuse()
        return self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, pixel_values: Tensor, **_: object) -> SamVisionEncoderOutput:
        """(B, 3, S, S) float pixels -> `last_hidden_state` (B, 256, 64, 64)."""
        x = self.patch_embed(pixel_values.contiguous(memory_format=torch.channels_last))
        for stage in self.layers:
            again = self.gradient_checkpointing and torch.is_grad_enabled()
            x = checkpoint(stage, x, use_reentrant=False) if again else stage(x)
        return SamVisionEncoderOutput(last_hidden_state=self.neck(x).contiguous())
