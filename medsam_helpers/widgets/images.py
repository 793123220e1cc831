"""Images for the demo: of a data source, or of a folder of plain images."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medsam_helpers.data.loading import load_data, places_of
from medsam_helpers.data.pairing import files_by_stem
from medsam_helpers.data.reading import read_image
from medsam_helpers.data.sources import SOURCES
from medsam_helpers.errors import DataError

READ = "from medsam_helpers.data.reading import read_image\n\nimage = read_image({!r})"
_LOAD = """from medsam_helpers.data.loading import load_data

cases = load_data({!r}, train_limit=0, dev_limit=0).val
image = cases[cases.names.index({!r})].image"""


class Picture(NamedTuple):
    """Image (H, W, 3) uint8 to prompt on, its truth (H, W) bool where known, and Python `code` that makes `image`."""

    name: str
    image: np.ndarray
    truth: np.ndarray | None
    code: str


class PictureSource(NamedTuple):
    """Pictures by name, read when asked for."""

    title: str
    names: list[str]
    load: Callable[[str], Picture]


def picture_source(source: str | Path) -> PictureSource:
    """The validation cases of a source that `load_data` takes; or all images, without truth, of a folder of images.

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
        return Picture(name, case.image, case.mask, _LOAD.format(str(source), name))

    shown = ", ".join(Path(place).name for place in places_of(source))
    return PictureSource(f"{'folder ' if source not in SOURCES else ''}{shown}", cases.names, load)


def _plain_folder(folder: Path) -> PictureSource:
    inside = folder / "images" if (folder / "images").is_dir() else folder
    files = {file.name: file for same in files_by_stem(inside, []).values() for file in same}
    if not files:
        raise DataError(f"{inside}: holds no file of a format that Pillow reads (PNG, JPEG, TIFF, ...)")

    def load(name: str) -> Picture:
        return Picture(name, read_image(files[name]), None, READ.format(str(files[name])))

    return PictureSource(f"folder {folder.name}", list(files), load)
