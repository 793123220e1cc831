"""Encoded image files, decoded to their pixels: what Pillow reads rightly by Pillow, other TIFF files by tifffile."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import tifffile
from PIL import Image, UnidentifiedImageError

from medsam_helpers.errors import DataError, one_line

Source = str | Path | bytes  # a path, or the bytes of an encoded file

# What EXIF and TIFF call orientation: how the stored pixels become the upright picture, a Pillow image or an array.
_UPRIGHT: dict[int, tuple[Image.Transpose, Callable[[np.ndarray], np.ndarray]]] = {
    2: (Image.Transpose.FLIP_LEFT_RIGHT, lambda pixels: pixels[:, ::-1]),
    3: (Image.Transpose.ROTATE_180, lambda pixels: pixels[::-1, ::-1]),
    4: (Image.Transpose.FLIP_TOP_BOTTOM, lambda pixels: pixels[::-1]),
    5: (Image.Transpose.TRANSPOSE, lambda pixels: pixels.swapaxes(0, 1)),
    6: (Image.Transpose.ROTATE_270, lambda pixels: np.rot90(pixels, -1)),
    7: (Image.Transpose.TRANSVERSE, lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1)),
    8: (Image.Transpose.ROTATE_90, lambda pixels: np.rot90(pixels, 1)),
}


class Decoded(NamedTuple):
    """The only frame of a file: a Pillow image of 8 bits a channel, or an array of what Pillow would cut or wrap."""

    pixels: Image.Image | np.ndarray
    turned: bool  # whether its orientation tag asks for a turn


def decode(source: Source, exif: Literal["apply", "ignore"] = "apply") -> Decoded:
    """The only frame of a file, turned upright unless EXIF is to be ignored.

    `DataError`: not there, not readable, several frames in one file, or values that are not finite.
    """
    if not isinstance(source, bytes) and not Path(source).is_file():
        why = "a folder, a pipe or a device, not a file" if Path(source).exists() else "there is no such file"
        raise DataError(f"{shown(source)}: {why}")
    try:
        # From memory: Pillow scrambles gray TIFF files with an orientation that it maps from disk.
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError as error:
        raise DataError(f"{shown(source)}: cannot be read ({error.strerror})") from error
    try:
        deep = _deep_tiff(data) if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+") else None
        pixels, orientation = deep or _picture(data, shown(source))
    except DataError:
        raise
    except Exception as error:  # decoders raise anything from OSError to struct.error on a damaged file
        why = "of no format that Pillow knows" if isinstance(error, UnidentifiedImageError) else one_line(error)
        raise DataError(f"{shown(source)}: not a readable image ({why})") from error
    if isinstance(pixels, np.ndarray) and pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise DataError(f"{shown(source)}: holds values that are not finite (NaN or infinity)")
    if exif == "apply" and orientation in _UPRIGHT:
        of_picture, of_array = _UPRIGHT[orientation]
        pixels = of_array(pixels) if isinstance(pixels, np.ndarray) else pixels.transpose(of_picture)
    return Decoded(pixels, orientation in _UPRIGHT)


def on_black(image: Image.Image) -> Image.Image:
    """The image as RGB, transparent pixels on black, unless all of them are transparent: that is a writer's slip."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    if not np.asarray(rgba)[..., 3].any():
        return rgba.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "black"), rgba).convert("RGB")


def shown(source: Source) -> str:
    """The file's name for messages."""
    return "image bytes" if isinstance(source, bytes) else str(source)


def _picture(data: bytes, name: str) -> tuple[Image.Image | np.ndarray, int]:
    """What Pillow reads, with its orientation."""
    with Image.open(io.BytesIO(data)) as image:
        # Phone cameras hide a second frame in MPO; any other stack leaves it open which frame is meant.
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        if frames > 1:
            raise DataError(f"{name}: holds {frames} frames: save the one you mean as its own file")
        is_cut = image.mode in ("RGB", "RGBA") and any("16" in str(tile[3]) for tile in image.tile)
        orientation = image.getexif().get(Image.ExifTags.Base.Orientation) or 1
        image.load()
        if is_cut and np.asarray(image)[..., :3].max() < 128:
            told = "has 16 bits a channel, of which Pillow reads the upper 8, and those are dark: save it with 8 bits"
            raise DataError(f"{name}: {told}")
        stored: Image.Image = image.copy()
        if orientation in _UPRIGHT and image.format == "TIFF":  # Pillow has turned it upright, others not: turn it back
            stored = image.transpose(_UPRIGHT[{6: 8, 8: 6}.get(orientation, orientation)][0])
        return (np.asarray(stored) if image.mode[0] in "IF" else stored), orientation


def _deep_tiff(data: bytes) -> tuple[np.ndarray, int] | None:
    """A TIFF of more than 8 bits or with signs, with its orientation; None for what Pillow reads rightly."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page: Any = file.pages[0]
        if len(file.pages) > 1 or page.dtype is None or (page.bitspersample <= 8 and page.dtype.kind == "u"):
            return None
        pixels = page.asarray()
        if pixels.ndim == 3 and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
            pixels = np.moveaxis(pixels, 0, 2)
        if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
            pixels = pixels.max() - pixels + pixels.min()
        orientation = page.tags["Orientation"].value if "Orientation" in page.tags else 1
    if pixels.ndim == 3:
        pixels = pixels[..., 0] if pixels.shape[2] < 3 else pixels[..., :3]
    return pixels, int(orientation)
