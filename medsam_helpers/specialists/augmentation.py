"""Random changes of an image and its mask, for a model that sees pixels; a decoder gets the views of `data.views`."""

import math

import numpy as np
import torch
from torch import Tensor


def augmented(pixels: Tensor, target: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Changed copies of an image and its mask: both turned, scaled, moved, mirrored; the image also in other light.

    Pixels are (3, H, W) float, as `sam.loading.pixel_values` makes them, without padding; the target is (H, W) bool. A
    lesion stays in the picture: where it would leave, only the light changes.

    Source: the kinds and sizes of change follow nnU-Net, Isensee et al., Nature Methods 2021, supplement.
    """
    from monai import transforms as mt  # here, since importing MONAI imports every tracker there is

    seed, shift = int(rng.integers(2**31)), max(pixels.shape) // 10
    place = mt.RandAffine(1.0, math.pi, translate_range=shift, scale_range=(-0.3, 0.4), padding_mode="zeros")
    scale = mt.RandScaleIntensity(factors=0.25, prob=0.5, channel_wise=True)
    offset = mt.RandShiftIntensity(offsets=0.2, prob=0.5, channel_wise=True)
    light = mt.Compose([scale, offset, mt.RandGaussianNoise(prob=0.2, std=0.1), mt.RandGaussianSmooth(prob=0.1)])
    place.set_random_state(seed)
    light.set_random_state(seed)
    both = place(torch.cat([pixels, target[None].float()]), mode="bilinear").as_subclass(Tensor)
    if rng.random() < 0.5:
        both = both.flip(-1)
    if (both[3] > 0.5).any():
        pixels, target = both[:3], both[3] > 0.5
    return light(pixels.clone()).as_subclass(Tensor).float(), target
