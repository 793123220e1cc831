"""`Sam2`: the image model of SAM 2 behind the interface of `Sam`, whose decoder is trained and asked as SAM's is."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedConfig, Sam2Config, Sam2Model
from transformers.models.sam2.modeling_sam2 import Sam2ImageSegmentationOutput, Sam2PositionalEmbedding


class FullPrecisionPositions(Sam2PositionalEmbedding):
    """The code of positions, under autocast too in float32, see `sam.model.FullPrecisionPositions`."""

    def forward(self, *coordinates: Any) -> Tensor:
        """As `Sam2PositionalEmbedding`."""
        with torch.autocast(self.positional_embedding.device.type, enabled=False):
            return super().forward(*coordinates)


class Sam2(Sam2Model):
    """A `Sam2Model` with the same weights and names, whose embedding is one tensor an image.

    Its decoder adds two finer maps of the image while it enlarges the mask. They come out of its own layers `conv_s0`
    and `conv_s1`, and what is kept of an image comes after these: so both stay frozen (`freeze_all_but`), or the
    decoder would be trained on maps that it no longer makes. Kept before them a map has 256 channels in place of 32 and
    64, and an image takes 44 MB in place of 8.4.

    Args:
        config: changed in place. In eval mode, and only there, SAM 2 answers a prompt for one mask with the best of
            three where that one is unstable. Training with single masks never sees the tokens of the three, so that is
            switched off, and stays so in what is exported.
    Source: Ravi et al., SAM 2: Segment Anything in Images and Videos, ICLR 2025; arXiv 2408.00714.
    """

    def __init__(self, config: Sam2Config) -> None:
        parts: Any = config
        parts.mask_decoder_config.dynamic_multimask_via_stability = False
        super().__init__(config)
        self.shared_image_embedding = FullPrecisionPositions(parts.prompt_encoder_config)
        self.prompt_encoder.shared_embedding = FullPrecisionPositions(parts.prompt_encoder_config)

    def get_image_embeddings(self, pixel_values: Tensor, **_: Any) -> Tensor:  # type: ignore[override]
        """(B, 1024, 64, 64) of pixels (B, 3, 1024, 1024): the three maps, joined on the grid of the coarsest.

        A cell holds 4 x 4 pixels of the finest map (32 channels), 2 x 2 of the middle one (64) and one of the coarsest
        (256).
        """
        fine, middle, coarse = super().get_image_embeddings(pixel_values)
        return torch.cat([F.pixel_unshuffle(fine, 4), F.pixel_unshuffle(middle, 2), coarse], dim=1)

    def forward(  # type: ignore[override]
        self, pixel_values: Tensor | None = None, image_embeddings: Tensor | None = None, **given: Any
    ) -> Sam2ImageSegmentationOutput:
        """As `Sam`: `pred_masks` (B, N, M, h, w) and `iou_scores` (B, N, M) for N prompts on each of B images.

        Args:
            pixel_values: (B, 3, 1024, 1024), or:
            image_embeddings: (B, 1024, 64, 64), see `get_image_embeddings`.
            given: `input_boxes` (B, N, 4), `input_points` (B, N, K, 2) with `input_labels` (B, N, K), `input_masks`
                (B, 1, h, w), `multimask_output`. Without box and point the prompt is a box round all.
        """
        # See `QuickMaskDecoder`: a step takes four fifths.
        plainly = torch.is_grad_enabled() and torch.is_autocast_enabled("cpu")
        self.mask_decoder.config._attn_implementation = "eager" if plainly else "sdpa"
        given = {name: value for name, value in given.items() if value is not None}
        if "input_masks" in given:
            given["input_masks"] = given["input_masks"].clamp(-32, 32)  # see `Sam`
        if "input_labels" in given:
            given["input_labels"] = given["input_labels"].long()  # they are looked up in a table
        if image_embeddings is None:
            return super().forward(pixel_values, **given)
        if not {"input_boxes", "input_points"} & given.keys():
            side = self.prompt_encoder.input_image_size
            given["input_boxes"] = image_embeddings.new_tensor([0, 0, side, side]).expand(len(image_embeddings), 1, 4)
        width = self.hidden_dim
        fine, middle, coarse = image_embeddings.split([2 * width, width, width], dim=1)
        maps: Any = [F.pixel_shuffle(fine, 4), F.pixel_shuffle(middle, 2), coarse]
        return super().forward(image_embeddings=maps, **given)


def image_config(config: PreTrainedConfig) -> Sam2Config:
    """The image model's configuration: the hub's folders name the video model, whose weights hold the image model's."""
    if isinstance(config, Sam2Config):
        return config
    parts = ("vision_config", "prompt_encoder_config", "mask_decoder_config")
    return Sam2Config(**{part: getattr(config, part).to_dict() for part in parts})
