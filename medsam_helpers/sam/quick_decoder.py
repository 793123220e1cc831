"""SAM's mask decoder, same weights and same masks, in the form that processors are quick at."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import SamModel
from transformers.models.sam.modeling_sam import SamMaskDecoder


class QuickMaskDecoder(SamMaskDecoder):
    """The decoder of `transformers` without a single transposed convolution.

    Both enlarging layers have a kernel as large as their stride, so they make 2 x 2 new pixels of each pixel and mix
    no neighbours. Everything after the transformer therefore works pixel by pixel: plain matrix products on rows of
    channels, and only the finished mask, one channel in place of 32, is put in its order on the 256 x 256 grid.
    On a CPU a training step takes two thirds of the time.
    """

    def forward(
        self,
        image_embeddings: Tensor,
        image_positional_embeddings: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
        multimask_output: bool,
        attention_similarity: Tensor | None = None,
        target_embedding: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As `SamMaskDecoder`: masks (B, N, M, h, w) and their IoU scores (B, N, M); N prompts, M is 1 or 3."""
        batch, prompts = sparse_prompt_embeddings.shape[:2]
        own_tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight]).expand(batch, prompts, -1, -1)
        tokens = torch.cat([own_tokens, sparse_prompt_embeddings], dim=2)
        # channels_last: the transformer sees pixels as rows of channels, and this way they lie in memory as rows.
        image = image_embeddings + dense_prompt_embeddings
        if prompts > 1:
            image = image.repeat_interleave(prompts, 0)
        position = image_positional_embeddings[:1]  # of the grid, the same for every image: adding it repeats it
        tokens, pixels = self.transformer(
            point_embeddings=tokens,
            image_embeddings=image.contiguous(memory_format=torch.channels_last),
            image_positional_embeddings=position.contiguous(memory_format=torch.channels_last),
            attention_similarity=attention_similarity,
            target_embedding=target_embedding,
        )
        wanted = range(1, self.num_mask_tokens) if multimask_output else range(1)
        networks = self.output_hypernetworks_mlps
        # One row of 32 weights a mask, to be multiplied with each pixel's 32 channels.
        weights = torch.stack([networks[i](tokens[:, :, 1 + i]) for i in wanted], dim=2)
        masks = self._enlarge(pixels) @ weights.flatten(0, 1).transpose(1, 2)
        height, width = image.shape[2:]
        masks = _in_order(masks, height, width).unflatten(0, (batch, prompts))
        return masks, self.iou_prediction_head(tokens[:, :, 0])[:, :, wanted.start : wanted.stop]

    def _enlarge(self, pixels: Tensor) -> Tensor:
        """(B, N, P, C) pixels -> (B N, 16 P, C / 8): each one's 2 x 2 children, and theirs."""
        norm = self.upscale_layer_norm
        children = _enlarging_product(pixels.flatten(0, 1), self.upscale_conv1)
        children = nn.functional.layer_norm(children, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        return self.activation(_enlarging_product(self.activation(children), self.upscale_conv2))


def _enlarging_product(pixels: Tensor, layer: nn.ConvTranspose2d) -> Tensor:
    """(B, P, C) -> (B, 4 P, O): the transposed convolution as a matrix product; four rows in place of each."""
    weight = layer.weight.permute(2, 3, 1, 0).flatten(0, 2)  # (C, O, 2, 2) -> (4 O, C)
    children = nn.functional.linear(pixels, weight, layer.bias.repeat(4))
    return children.reshape(len(pixels), -1, layer.out_channels)


def _in_order(masks: Tensor, height: int, width: int) -> Tensor:
    """(B, 16 H W, M), children after children -> (B, M, 4 H, 4 W)."""
    # Rows are counted by (y, x) of the embedding, then (dy, dx) of the first enlargement, then of the second.
    grid = masks.reshape(len(masks), height, width, 2, 2, 2, 2, -1)
    return grid.permute(0, 7, 1, 3, 5, 2, 4, 6).reshape(len(masks), -1, 4 * height, 4 * width)


def with_quick_decoder(model: SamModel) -> SamModel:
    """The model with its mask decoder replaced (in place); names and weights stay.

    Raises:
        ValueError: an enlarging layer is of another kind than SAM's.
    """
    old = model.mask_decoder
    for name in ("upscale_conv1", "upscale_conv2"):
        layer = old.get_submodule(name)
        if (layer.kernel_size, layer.stride, layer.padding) != ((2, 2), (2, 2), (0, 0)):
            raise ValueError(f"{name}: kernel {layer.kernel_size} and stride {layer.stride} must be 2, without padding")
    quick = QuickMaskDecoder(old.config)
    quick.load_state_dict(old.state_dict())
    model.mask_decoder = quick.train(old.training).to(old.iou_token.weight)
    return model
