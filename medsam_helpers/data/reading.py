"""Image and mask files of any format, as the arrays of a `Case`."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medsam_helpers.data.case import Case, Finding
from medsam_helpers.data.decoding import Decoded, Source, decode, on_black, shown
from medsam_helpers.data.masks import MaskReading, kind_of, read_values
from medsam_helpers.data.sources import Selection
from medsam_helpers.errors import ConfigError, DataError
from medsam_helpers.files import atomic_write


def read_image(source: Source, *, window: str | None = None) -> np.ndarray:
    """(H, W, 3) uint8 RGB of any image, turned upright as its orientation tag says.

    Transparent pixels are laid on black, unless all of them are transparent. Images of more than 8 bits are stretched
    linearly from their own minimum..maximum to 0..255, all channels alike. An image of one single value becomes black.

    Args:
        source: a path, or the bytes of an encoded file.
        window: what becomes 0..255 in place of that: values, "-160:240", or percentiles, "1%:99%".
    Raises:
        DataError: not there, not readable, several frames in one file, or values that are not finite.
        ConfigError: no such window.
    """
    return _rgb(decode(source), window)


def write_mask(mask: np.ndarray, path: Path) -> None:
    """Write a mask (H, W) bool as PNG, 0 and 255, whole or not at all."""
    with atomic_write(path) as temporary:
        Image.fromarray(mask.astype(np.uint8) * 255).save(temporary, "PNG")


def as_rgb(image: Any) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a picture that is in memory, where it is plain what its values mean; else a `DataError`.

    It may be (H, W) or (H, W, C) of uint8, C 1, 3 or 4; floats from 0 to 1 of these shapes; or a Pillow image.
    """
    if isinstance(image, Image.Image):
        deep = image.mode[0] in "IF"
        return _rgb(Decoded(np.asarray(image) if deep else image, False), None)
    image = np.asarray(image)
    told = f"the image is {image.dtype} of shape {image.shape}: pass (H, W, 3) uint8"
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.ndim == 3 and image.shape[0] in (1, 3, 4) and channels not in (1, 3, 4):
        raise DataError(f"{told}; its channels come first: image.transpose(1, 2, 0)")
    if image.ndim not in (2, 3) or channels not in (1, 3, 4):
        raise DataError(told)
    if image.dtype.kind == "f" and np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1:
        image = np.rint(image * 255).astype(np.uint8)
    if image.dtype != np.uint8:
        raise DataError(f"{told}, or floats from 0 to 1; scale it as you want it to be seen, or read_image(path)")
    if channels == 4:
        return np.array(on_black(Image.fromarray(image)))
    return image if channels == 3 else np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)


def read_mask(source: Source) -> MaskReading:
    """A mask file as it was understood, turned upright if it carries an orientation tag.

    A mask is binary (0 and one other value), or binary with the noise of JPEG or soft edges near both ends. A picture
    of a single colour with transparency is read by its transparency; otherwise transparent pixels are black. Palettes
    of black and white count by their colours, others by their entries. `DataError`: as for `read_image`; a label map,
    for which see `read_case`; a photograph.
    """
    return read_values(*_mask_values(decode(source)), shown(source))


def read_case(name: str, image: Source, masks: Sequence[Source], selection: Selection) -> Case:
    """The case of an image and its mask, or of the union of its masks, each of which is then a label.

    The selection says how they are read: labels, window, orientation, and whether a mask may be empty. `DataError`: a
    file that cannot be used, image and mask of different sizes, or an empty mask.
    """
    exif, labels = selection.exif, (selection.classes, selection.ignore)
    picture, drawn = decode(image, exif), [decode(mask, exif) for mask in masks]
    pixels, findings = _rgb(picture, selection.window), []
    try:
        read = [read_values(*_mask_values(one), shown(mask), *labels) for one, mask in zip(drawn, masks, strict=True)]
    except DataError as error:
        if error.problem == "photograph" and kind_of(*_mask_values(picture)) != "photograph":
            raise DataError(f"{error}; {shown(image)} looks like one: are both swapped?", error.problem) from None
        raise
    for one in read:
        if one.mask.shape != pixels.shape[:2]:
            sizes = "the mask is {1} x {0}, the image {3} x {2}".format(*one.mask.shape, *pixels.shape)
            raise DataError(f"{name}: {sizes} (EXIF rotation: {exif}): save both in one size", "wrong size")
        if one.soft:
            detail = f"{100 * one.soft:.2f} % of the pixels between the ends: JPEG noise, soft edges"
            findings.append(Finding(name, "mask not binary", "note", detail))
    if picture.turned and not any(each.turned for each in drawn):
        detail = "the image has an EXIF orientation and was turned, its mask has none; if that was drawn on the stored "
        detail += "pixels, as OpenCV and scikit-image show them: --exif ignore"
        if exif == "ignore":
            detail = "its EXIF orientation was ignored, as asked for"
        findings.append(Finding(name, "orientation", "warning" if exif == "apply" else "note", detail))
    absent = sorted(set.intersection(*({*one.absent} for one in read)))
    findings += [Finding(name, "class not in mask", "note", word) for word in absent]
    mask = np.logical_or.reduce([one.mask for one in read])
    if not mask.any() and selection.empty_masks == "refuse":
        none = f" ({', '.join(absent)} is not in it)" if absent else ""
        told = "leave the case out, or keep it as an image without a lesion (--empty-masks keep)"
        raise DataError(f"{name}: the mask is empty{none}: {told}", "empty mask")
    ignored = [one.ignored for one in read if one.ignored is not None]
    regions = [one.labels for one in read if one.labels is not None]
    if len(read) > 1:
        regions = [one.mask * np.int32(number) for number, one in enumerate(read, 1)]
    return Case(
        name,
        pixels,
        mask,
        ignored=np.logical_or.reduce(ignored) if ignored else None,
        labels=np.maximum.reduce(regions) if regions else None,
        mask_value=next((one.value for one in read if one.value), None),
        findings=tuple(findings),
    )


def _rgb(decoded: Decoded, window: str | None) -> np.ndarray:
    pixels = decoded.pixels
    if isinstance(pixels, Image.Image):
        pixels = np.array(on_black(pixels))
        if window is None:
            return pixels
    low, high = _limits(pixels, window)
    scaled = (np.clip(pixels.astype(np.float64), low, high) - low) * (255 / (high - low if high > low else 1))
    rgb = np.rint(scaled).astype(np.uint8)
    return np.repeat(rgb[..., None], 3, axis=2) if rgb.ndim == 2 else np.ascontiguousarray(rgb)


def _limits(pixels: np.ndarray, window: str | None) -> tuple[float, float]:
    """What becomes 0 and 255."""
    if window is None:
        return float(pixels.min()), float(pixels.max())
    found = re.fullmatch(r"(-?\d+(?:\.\d+)?)(%?):(-?\d+(?:\.\d+)?)(%?)", window)
    low, high = (float(found[1]), float(found[3])) if found else (0.0, 0.0)
    if not found or found[2] != found[4] or not low < high or (found[2] and not 0 <= low < high <= 100):
        raise ConfigError(f"window {window!r}: use values, '-160:240', or percentiles, '1%:99%', the lower one first")
    if found[2]:
        low, high = np.percentile(pixels, [low, high]).tolist()
    return low, high


def _mask_values(decoded: Decoded) -> tuple[np.ndarray, bool]:
    """(H, W) int values of a mask, and whether they are colours, 0xRRGGBB."""
    pixels = decoded.pixels
    if isinstance(pixels, np.ndarray):
        if pixels.dtype.kind == "f":
            pixels = np.rint(pixels * 255 if pixels.max() <= 1 else pixels).astype(np.int64)
        if pixels.ndim == 2:
            return pixels, False
        pixels = Image.fromarray(pixels.astype(np.uint8))
    if pixels.mode == "1":
        return np.asarray(pixels).astype(np.uint8) * np.uint8(255), False
    if pixels.mode == "P":
        rgb = np.asarray(pixels.convert("RGB"))
        if not np.isin(rgb, (0, 255)).all() or (np.ptp(rgb, axis=2) > 0).any():
            return np.asarray(pixels), False
    if pixels.has_transparency_data:
        rgba = np.asarray(pixels.convert("RGBA"))
        if (rgba[..., :3] == rgba[0, 0, :3]).all():
            return rgba[..., 3], False
        pixels = on_black(pixels)
    red, green, blue = np.moveaxis(np.asarray(pixels.convert("RGB")), 2, 0)
    brightest = np.maximum(np.maximum(red, green), blue)  # 20 times as fast as max(axis=2)
    if (brightest - np.minimum(np.minimum(red, green), blue) < 32).all():  # gray, but for the noise of JPEG
        return brightest, False
    return (red.astype(np.int32) << 16) | (green.astype(np.int32) << 8) | blue, True
