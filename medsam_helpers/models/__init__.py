"""Every checkpoint as one interface: a `transformers.SamModel`, with what training and evaluation ask of it."""

from medsam_helpers.models.decoder import load_checkpoint, save_decoder
from medsam_helpers.models.loading import ModelInfo, load_sam, model_info, pixel_values
from medsam_helpers.models.parts import PARTS, freeze_all_but, parameter_table

__all__ = [
    "PARTS",
    "ModelInfo",
    "freeze_all_but",
    "load_checkpoint",
    "load_sam",
    "model_info",
    "parameter_table",
    "pixel_values",
    "save_decoder",
]
