"""A light SAM that is cut one stage before the end of its encoder, so that the last stage can learn too."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import SamModel
from transformers.models.sam.modeling_sam import SamImageSegmentationOutput


class PartiallyUnfrozenSam(SamModel):
    """Takes `SamModel`'s place, and caches as far as it is frozen: its "embedding" is what the last stage is given.

    What lies before the cut never changes, so the same store serves; what lies behind it, `last_stage`, is a part that
    may train. A step costs several times that of the decoder alone, and still a fraction of the whole encoder's. Made
    by `partially_unfrozen`.
    """

    def forward(self, image_embeddings: Tensor, **others: Tensor | bool) -> SamImageSegmentationOutput:
        """As `SamModel` from embeddings, which here are (B, 320, 64, 64)."""
        # Several prompts on one image are one embedding, seen several times (`expand`): once is enough.
        distinct = image_embeddings[:1] if image_embeddings.stride(0) == 0 else image_embeddings
        # channels_last: what convolutions and, on rows of channels, transformer blocks are quick at.
        features = self.last_stage(distinct.contiguous(memory_format=torch.channels_last)).contiguous()
        return super().forward(image_embeddings=features.expand(len(image_embeddings), -1, -1, -1), **others)


def partially_unfrozen(model: SamModel) -> PartiallyUnfrozenSam:
    """Move the last stage and the neck of a TinyViT encoder into a part of their own (in place)."""
    encoder = model.vision_encoder
    # The other stages keep channels_last; weights that train are saved, and safetensors wants them as they are written.
    model.last_stage = nn.Sequential(encoder.layers[-1], encoder.neck).to(memory_format=torch.contiguous_format)
    encoder.layers, encoder.neck = encoder.layers[:-1], nn.Identity()
    model.__class__ = PartiallyUnfrozenSam
    return model


def joined(model: PartiallyUnfrozenSam) -> SamModel:
    """The same network in one piece again: what `partially_unfrozen` did is undone (in place)."""
    encoder = model.vision_encoder
    encoder.layers.append(model.last_stage[0])
    encoder.neck = model.last_stage[1]
    del model.last_stage
    model.__class__ = SamModel
    return model
