"""A U-Net to compare SAM with: it learns one task from random weights, behind the interface of `SamModel`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import SamConfig
from transformers.models.sam.modeling_sam import SamImageSegmentationOutput

from medsam_helpers.errors import ConfigError, PromptError

SIDE = 256  # of the square input and of the logits, pixels
WIDTHS = (16, 32, 64, 128, 256)


class PromptedUNet(nn.Module):
    """A U-Net that takes a `SamModel`'s place in training, scoring and the `Segmenter`.

    Its "embedding" is the image itself. A box is a fourth channel, 1 inside and 0 outside; without it the network has
    to find the lesion by itself.

    Args:
        name: "unet-box", or "unet", which does not look at the boxes that it is given.
        seed: of the first weights.
    Source: Ronneberger et al., MICCAI 2015; with residual units, Kerfoot et al., STACOM 2018 (MONAI's `UNet`). The
        box as a channel is how the specialists were prompted in Ma et al., Nature Communications 2024.
    """

    def __init__(self, name: str, seed: int = 0) -> None:
        from monai.networks.nets import UNet  # here, since importing MONAI imports every tracker there is

        super().__init__()
        self.sees_box = name == "unet-box"
        sides = {"image_size": SIDE, "patch_size": SIDE // 64}
        self.config = SamConfig(vision_config=sides, prompt_encoder_config=sides)
        # No weights came from elsewhere: the architecture stands for their digest.
        self.config.base_name, self.config.base_digest = name, f"{name}-{SIDE}-" + "-".join(map(str, WIDTHS))
        self.vision_encoder, self.prompt_encoder, self.shared_image_embedding = (nn.Identity() for _ in range(3))
        layers: dict[str, Any] = {"act": ("leakyrelu", {"inplace": True}), "norm": ("instance", {"affine": True})}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
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
        """Logits of one mask for one box an image.

        Args:
            image_embeddings: (B, 3, 256, 256) float, see `loading.pixel_values`.
            input_boxes: (B, 1, 4) xyxy, model space.
            multimask_output: must be False.
            others: arguments of `SamModel`; none can be given.
        Returns:
            `pred_masks` (B, 1, 1, 256, 256) logits; `iou_scores` (B, 1, 1), NaN: it has no opinion of itself.
        Raises:
            PromptError: a click, a mask, or no box where it looks at one.
            ConfigError: several masks are asked for.
        """
        no_box = self.sees_box if input_boxes is None else input_boxes.shape[1] != 1
        if others or no_box:
            raise PromptError("a U-Net answers one box an image, and neither clicks nor masks")
        if multimask_output:
            raise ConfigError("a U-Net gives one mask a box: leave multimask off")
        inputs = image_embeddings
        if self.sees_box and input_boxes is not None:
            inputs = torch.cat([inputs, filled_boxes(input_boxes[:, 0], inputs.shape[-1]).to(inputs)], dim=1)
        logits = self.mask_decoder(inputs)
        scores = logits.new_full((len(logits), 1, 1), float("nan"))
        return SamImageSegmentationOutput(iou_scores=scores, pred_masks=logits[:, None])


def filled_boxes(boxes: Tensor, side: int) -> Tensor:
    """(B, 4) xyxy -> (B, 1, side, side) float, 1 where a pixel's centre lies inside.

    >>> filled_boxes(torch.tensor([[1.0, 0.0, 3.0, 1.0]]), 3)[0, 0].int().tolist()
    [[0, 1, 1], [0, 0, 0], [0, 0, 0]]
    """
    centre = torch.arange(side, device=boxes.device) + 0.5
    x0, y0, x1, y1 = boxes.float()[:, :, None].unbind(1)
    across, down = ((low <= centre) & (centre < high) for low, high in ((x0, x1), (y0, y1)))
    return (down[:, :, None] & across[:, None, :])[:, None].float()
