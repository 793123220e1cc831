"""Image and mask files of any Pillow format, read into the two arrays of a `Case`."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from medsam_helpers.data.case import Case
from medsam_helpers.errors import DataError

_FULL_SCALES = (1, 255, 65535)  # of masks: labels 0/1, eight bits, sixteen bits


def read_image(source: str | Path | bytes) -> np.ndarray:
    """Any image as upright 8-bit RGB.

    Transparent pixels are laid on black. The EXIF rotation is applied. Single-channel images of more than 8 bits
    (`I;16`, `I`, `F`) are stretched linearly from their own minimum..maximum to 0..255: window absolute values
    (Hounsfield units, say) before saving if they matter. An image of one single value becomes black.

    Args:
        source: a path, or the bytes of an encoded file.
    Returns:
        (H, W, 3) uint8 RGB.
    Raises:
        DataError: not there, not readable, several frames in one file, or values that are not finite.
    """
    image = _decode(source)
    if image.mode.startswith(("I", "F")):
        gray = np.asarray(image, np.float64)
        low, high = gray.min(), gray.max()
        stretched = np.rint((gray - low) * (255 / (high - low if high > low else 1))).astype(np.uint8)
        return np.repeat(stretched[..., None], 3, axis=2)
    return np.array(_on_black(image))


def read_mask(source: str | Path | bytes) -> np.ndarray:
    """Any mask file as booleans: a pixel belongs to the lesion when it exceeds half of the file's full scale.

    The full scale is 1 if no value exceeds 1, 255 if none exceeds 255, 65535 beyond. A colour counts by its brightest
    channel, palettes by their colours, transparent pixels as black. The EXIF rotation is applied only if the mask
    carries the tag itself. A mask that is not blank yet stays below half of its full scale (labels 0, 1, 2, say) is
    refused: guessing would lose lesions.

    Args:
        source: a path, or the bytes of an encoded file.
    Returns:
        (H, W) bool, True on the lesion.
    Raises:
        DataError: as for `read_image`, or values that are neither 0/1 nor on a full scale.
    """
    values, full_scale = read_mask_values(source)
    return values > (full_scale / 2 if values.dtype.kind == "f" else full_scale // 2)


def read_mask_values(source: str | Path | bytes) -> tuple[np.ndarray, int]:
    """(H, W) values of a mask as they were stored, and the full scale (1, 255 or 65535) they are drawn on."""
    image = _decode(source)
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8), 1
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image)
    else:
        red, green, blue = np.moveaxis(np.asarray(_on_black(image)), 2, 0)
        values = np.maximum(np.maximum(red, green), blue)  # 20 times as fast as max(axis=2)
    low, high = values.min(), values.max()
    full_scale = next((scale for scale in _FULL_SCALES if high <= scale), None)
    if low < 0 or full_scale is None or 0 < high <= full_scale / 2:
        raise DataError(
            f"{_shown(source)}: mask values run from {low:g} to {high:g}, neither 0/1 nor 0/255: "
            "save one mask a lesion class, 0 outside and 255 inside"
        )
    return values, full_scale


def make_case(name: str, image: np.ndarray, mask: np.ndarray) -> Case:
    """The case, or `DataError` where image and mask differ in size or the mask is empty."""
    if mask.shape != image.shape[:2]:
        sizes = "the mask is {1} x {0}, the image {3} x {2}".format(*mask.shape, *image.shape)
        raise DataError(f"{name}: {sizes} (EXIF rotation applied): save both upright and in one size")
    if not mask.any():
        raise DataError(f"{name}: the mask is empty, so no box can be drawn round it: leave the case out")
    return Case(name, image, mask)


def _decode(source: str | Path | bytes) -> Image.Image:
    """The only frame of a file, upright."""
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            # Phone cameras hide a second frame in MPO; any other stack leaves it open which frame is meant.
            frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
            upright = ImageOps.exif_transpose(image)
    except FileNotFoundError:
        raise DataError(f"{_shown(source)}: there is no such file") from None
    except Exception as error:  # Pillow's decoders raise anything from OSError to struct.error on a damaged file
        raise DataError(f"{_shown(source)}: not a readable image ({error or type(error).__name__})") from error
    if frames > 1:
        raise DataError(f"{_shown(source)}: holds {frames} frames: save the one you mean as its own file")
    if upright.mode.startswith("F") and not np.isfinite(np.asarray(upright)).all():
        raise DataError(f"{_shown(source)}: holds values that are not finite (NaN or infinity)")
    return upright


def _on_black(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "black"), rgba).convert("RGB")


def _shown(source: str | Path | bytes) -> str:
    return "image bytes" if isinstance(source, bytes) else str(source)
