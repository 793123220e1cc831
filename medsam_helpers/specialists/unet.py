"""U-Nets to compare SAM with: specialists that learn one task, behind the interface of `SamModel`."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import SamConfig
from transformers.models.sam.modeling_sam import SamImageSegmentationOutput

from medsam_helpers.errors import ConfigError, PromptError
from medsam_helpers.geometry import fill_box

SIDE = 256  # of the square input and of the logits, pixels
WIDTHS = (16, 32, 64, 128, 256)


class PromptedUNet(nn.Module):
    """A U-Net that takes a `SamModel`'s place in training, scoring and the `Segmenter`.

    Its "embedding" is the image itself. A box is a fourth channel, 1 inside and 0 outside; without it the network has
    to find the lesion by itself.

    Args:
        name: "unet-box"; or "unet" or "unet-pretrained", which do not look at the boxes that they are given.
        light: for "unet-pretrained" a light SAM, whose encoder becomes the way down of the U, and may train along.
    Source: Ronneberger et al., MICCAI 2015; with residual units, Kerfoot et al., STACOM 2018 (MONAI's `UNet`). The
        box as a channel is how the specialists were prompted in Ma et al., Nature Communications 2024.
    """

    def __init__(self, name: str, light: Any = None) -> None:
        super().__init__()
        self.sees_box = name == "unet-box"
        sides = {"image_size": SIDE, "patch_size": SIDE // 64}
        self.config = SamConfig(vision_config=sides, prompt_encoder_config=sides)
        # Where no weights came from elsewhere, the architecture stands for their digest.
        digest = light.config.base_digest if light else "-".join(map(str, WIDTHS))
        self.config.base_name, self.config.base_digest = name, f"{name}-{SIDE}-{digest}"
        self.vision_encoder = TinyViTGrids(light.vision_encoder) if light else nn.Identity()
        self.prompt_encoder, self.shared_image_embedding = nn.Identity(), nn.Identity()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            if light:
                self.config.embeds = "pixels"
                self.mask_decoder: nn.Module = UNetDecoder((64, 128, 160, 320))
            else:
                from monai.networks.nets import UNet  # here, since importing MONAI imports every tracker there is

                layers: Any = {"act": ("leakyrelu", {"inplace": True}), "norm": ("instance", {"affine": True})}
                body = UNet(2, 3 + self.sees_box, WIDTHS[0] // 2, WIDTHS, strides=(2,) * 4, num_res_units=2, **layers)
                # With a single channel MONAI's last layer would normalise the logits themselves, and hardly learn.
                self.mask_decoder = nn.Sequential(body, nn.Conv2d(WIDTHS[0] // 2, 1, 1))

    def get_image_embeddings(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, 256, 256) float pixels, as they came."""
        return pixel_values

    def forward(
        self,
        image_embeddings: Tensor,
        input_boxes: Tensor | None = None,
        multimask_output: bool = False,
        **others: Tensor,
    ) -> SamImageSegmentationOutput:
        """Of images (B, 3, 256, 256) and boxes (B, 1, 4) xyxy, both in the model space, logits (B, 1, 1, 256, 256).

        `iou_scores` (B, 1, 1) are NaN: it has no opinion of itself. `PromptError`: a click, a mask, or no box where it
        looks at one; `ConfigError`: several masks are asked for.
        """
        no_box = self.sees_box if input_boxes is None else input_boxes.shape[1] != 1
        if others or no_box:
            raise PromptError("a U-Net answers one box an image: no clicks, and no earlier mask, as `track` gives it")
        if multimask_output:
            raise ConfigError("a U-Net gives one mask a box: leave multimask off")
        inputs = image_embeddings
        if self.sees_box and input_boxes is not None:
            filled = [fill_box(box, (SIDE, SIDE)) for box in input_boxes[:, 0].float().cpu().numpy()]
            inputs = torch.cat([inputs, torch.from_numpy(np.stack(filled))[:, None].to(inputs)], dim=1)
        logits = self.mask_decoder(self.vision_encoder(inputs))
        scores = logits.new_full((len(logits), 1, 1), float("nan"))
        return SamImageSegmentationOutput(iou_scores=scores, pred_masks=logits[:, None])


class TinyViTGrids(nn.Module):
    """A TinyViT without its neck: what its stem and its stages make of an image, the finest grid first."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        encoder.to(memory_format=torch.contiguous_format)  # as safetensors wants it, not channels_last
        self.stem, self.stages = encoder.patch_embed, encoder.layers

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """(B, 3, S, S) -> (B, C, h, w): C 64, 128, 160 and 320, on grids of S / 4, S / 8, S / 16 and S / 16."""
        grids = [self.stem(pixels)]
        for stage in self.stages:
            grids.append(stage(grids[-1]))
        return [*grids[:3], grids[-1]]  # the last two stages are equally wide


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """A 3 x 3 convolution, normalised in groups of channels; with stride 2 to half the grid."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.GroupNorm(8, outputs), nn.GELU())


class UNetDecoder(nn.Module):
    """Joins grids of features, `widths` channels each, from the coarsest, the last, to the finest; enlarges it 4 x."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.up = nn.ModuleList(_block(fine + coarse, fine) for fine, coarse in pairwise(widths))
        fine, half = widths[0], widths[0] // 2
        self.enlarge = nn.Sequential(nn.ConvTranspose2d(fine, half, 2, 2), nn.GELU(), nn.ConvTranspose2d(half, 1, 2, 2))

    def forward(self, grids: Sequence[Tensor]) -> Tensor:
        """Grids (B, C, h, w), the finest first -> (B, 1, 4 h, 4 w) logits."""
        x = grids[-1]
        for joined, beside in zip(reversed(self.up), reversed(grids[:-1]), strict=True):
            x = joined(torch.cat([F.interpolate(x, beside.shape[-2:], mode="bilinear"), beside], dim=1))
        return self.enlarge(x)


class AutomaticHead(nn.Module):
    """A small U-Net that needs no prompt: from SAM's embedding to the logits of a mask on a grid four times as fine."""

    def __init__(self, channels: int = 256) -> None:
        super().__init__()
        # At the embedding's grid, at half and at a quarter of it; after a trial on Kvasir-SEG.
        fine, middle, coarse = widths = 64, 96, 128
        self.narrow = nn.Sequential(nn.Dropout2d(0.2), nn.Conv2d(channels, fine, 1), _block(fine, fine))
        self.down = nn.ModuleList([_block(fine, middle, 2), _block(middle, coarse, 2)])
        self.decoder = UNetDecoder(widths)

    def forward(self, embeddings: Tensor) -> Tensor:
        """(B, 256, h, w) embeddings -> (B, 1, 4 h, 4 w) logits."""
        grids = [self.narrow(embeddings)]
        for smaller in self.down:
            grids.append(smaller(grids[-1]))
        return self.decoder(grids)
