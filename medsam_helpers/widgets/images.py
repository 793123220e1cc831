"""Where the demo's images come from: a data source, a folder of plain images, a file that somebody uploads."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from medsam_helpers.data.reading import read_image
from medsam_helpers.data.sources import SOURCES, load_data
from medsam_helpers.errors import DataError


@dataclass(frozen=True, eq=False)
class Picture:
    """An image to prompt on.

    Args:
        name: shown with it.
        image: (H, W, 3) uint8 RGB.
        truth: (H, W) bool, where it is known.
        code: Python that makes the same `image`.
    """

    name: str
    image: np.ndarray = field(repr=False)
    truth: np.ndarray | None = field(repr=False, default=None)
    code: str = ""


@dataclass(frozen=True, eq=False)
class PictureSource:
    """Pictures by name, read when asked for."""

    title: str
    names: list[str]
    load: Callable[[str], Picture]


def picture_source(source: str | Path) -> PictureSource:
    """The pictures of a data source.

    Of a data set these are the validation cases, since models were tuned on the others and would look better there.
    A folder without `masks/` gives all its images, without truth.

    Args:
        source: as `load_data` takes it, or a folder of images.
    Raises:
        ConfigError: no source of that name and no such folder.
        DataError: there is no image in it, or the data set is bad.
    """
    folder = Path(source).expanduser()
    if source not in SOURCES and folder.is_dir() and not (folder / "masks").is_dir():
        return _plain_folder(folder)
    cases = load_data(source, train_limit=0, dev_limit=0).val
    if not len(cases):
        raise DataError(f"{source}: there are no validation cases to look at")

    def load(name: str) -> Picture:
        case = cases[cases.names.index(name)]
        code = (
            "from medsam_helpers.data import load_data\n\n"
            f"cases = load_data({str(source)!r}, train_limit=0, dev_limit=0).val\n"
            f"image = cases[cases.names.index({name!r})].image"
        )
        return Picture(name, case.image, case.mask, code)

    return PictureSource(f"{'folder ' if source not in SOURCES else ''}{folder.name}", cases.names, load)


def _plain_folder(folder: Path) -> PictureSource:
    Image.init()
    readable = {suffix for suffix, name in Image.registered_extensions().items() if name in Image.OPEN}
    inside = folder / "images" if (folder / "images").is_dir() else folder
    files = {file.name: file for file in sorted(inside.iterdir()) if file.suffix.lower() in readable}
    if not files:
        raise DataError(f"{inside}: holds no file of a format that Pillow reads (PNG, JPEG, TIFF, ...)")

    def load(name: str) -> Picture:
        code = f"from medsam_helpers.data.reading import read_image\n\nimage = read_image({str(files[name])!r})"
        return Picture(name, read_image(files[name]), code=code)

    return PictureSource(f"folder {folder.name}", list(files), load)


def read_upload(name: str, content: bytes) -> Picture:
    """An uploaded file as a picture without truth; turned upright, 16-bit stretched, gray and palettes made RGB.

    Raises:
        DataError: not a readable image, several frames, or so large that it smells of a decompression bomb
            (Pillow's limit, 89 million pixels).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = read_image(bytes(content))
    except DataError as error:
        raise DataError(str(error).replace("image bytes", name, 1)) from error
    code = (
        f"from medsam_helpers.data.reading import read_image\n\nimage = read_image({name!r})  # the file you uploaded"
    )
    return Picture(name, image, code=code)
