"""A folder with `images/` and `masks/` as a data source: the layout of Kvasir-SEG's archive, and of one's own data."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from medsam_helpers.data.case import SPLITS, Case, Dataset, SplitName
from medsam_helpers.data.reading import make_case, read_image, read_mask
from medsam_helpers.data.splits import build_dataset, listing, make_splits
from medsam_helpers.errors import DataError

__all__ = ["FolderIndex", "folder_dataset", "index_folder", "read_image", "read_mask"]


@dataclass(frozen=True)
class FolderIndex:
    """What lies in a folder, before any pixel is read.

    Args:
        path: the folder.
        images: stem -> the files of that stem in `images/`; more than one is a mistake.
        masks: the same for `masks/`.
        listed: split -> stems, for each of `train.txt`, `dev.txt` and `val.txt` that is there.
        ignored: files of `images/` and `masks/` that Pillow has no reader for, hidden ones apart.
    """

    path: Path
    images: Mapping[str, Sequence[Path]]
    masks: Mapping[str, Sequence[Path]]
    listed: Mapping[SplitName, Sequence[str]]
    ignored: Sequence[Path]

    @cached_property
    def stems(self) -> list[str]:
        """Every stem of an image, a mask or a split file, sorted."""
        return sorted({*self.images, *self.masks, *(stem for stems in self.listed.values() for stem in stems)})

    @cached_property
    def unlisted(self) -> list[str]:
        """The stems that no split gets, because `train.txt` and `val.txt` are both there and leave them out."""
        if not {"train", "val"} <= set(self.listed):
            return []
        listed = {stem for stems in self.listed.values() for stem in stems}
        return [stem for stem in self.stems if stem not in listed]

    def splits(self, seed: int) -> dict[SplitName, list[str]]:
        """The stems of each split in seeded order; see `make_splits`."""
        return make_splits(self.stems, seed, self.listed)

    def broken(self) -> dict[str, tuple[str, str]]:
        """Stem -> (problem, detail) for each stem that is not exactly one image and one mask."""
        found = {}
        for stem in self.stems:
            images, masks = self.images.get(stem, ()), self.masks.get(stem, ())
            if not images and not masks:
                found[stem] = ("missing file", "listed in a split file, but there is no image and no mask of that stem")
            elif not images:
                found[stem] = ("missing image", f"{_short(masks[0])} has no partner in images/")
            elif not masks:
                found[stem] = ("missing mask", f"{_short(images[0])} has no partner in masks/")
            elif len(images) > 1 or len(masks) > 1:
                twice = [*(images if len(images) > 1 else ()), *(masks if len(masks) > 1 else ())]
                found[stem] = ("duplicate stem", f"{', '.join(map(_short, twice))}: keep one")
        return found

    def read_pair(self, stem: str) -> tuple[np.ndarray, np.ndarray]:
        """The image and the mask of a stem, as they are."""
        return read_image(self.images[stem][0]), read_mask(self.masks[stem][0])

    def load(self, stem: str) -> Case:
        """One case.

        Raises:
            DataError: a file cannot be read, image and mask differ in size, or the mask is empty.
        """
        return make_case(stem, *self.read_pair(stem))


def folder_dataset(
    path: str | Path,
    *,
    train_limit: int | None = None,
    dev_limit: int | None = None,
    val_limit: int | None = None,
    split_seed: int = 0,
    skip_bad: bool = False,
) -> Dataset:
    """The cases of a folder with `images/` and `masks/`: files of one stem belong together, whatever their formats.

    `train.txt` and `val.txt` hold one stem a line (blank lines and an empty file are fine); with one of them, the
    other split gets the remaining stems; with neither, a fixed seeded fifth is val. `dev.txt` may name the dev split,
    otherwise a seeded tenth of train is dev. Stems that neither file lists are named in `left_out`,
    and so are files that Pillow has no reader for.

    Args:
        path: the folder.
        train_limit: take the first N of the seeded order; a larger limit contains the smaller. None for all.
        dev_limit: the same for dev, which is drawn before any limit is applied.
        val_limit: the same for val.
        split_seed: decides the order and the splits that have no file.
        skip_bad: go on without the bad cases and name them in `left_out`.
    Raises:
        DataError: no such layout; split files that contradict each other; or bad cases (unreadable, image and mask
            of different sizes, no partner, two files of one stem, empty mask), with the list of them.
        ConfigError: a limit is no whole number from 0 up.
    """
    index = index_folder(path)
    unlisted = set(index.unlisted)
    return build_dataset(
        index.path.resolve().name,
        index.splits(split_seed),
        index.load,
        limits={"train": train_limit, "dev": dev_limit, "val": val_limit},
        skip_bad=skip_bad,
        licence="not stated: the terms of whoever the folder is from",
        citation="not stated: cite whoever the folder is from",
        bad={stem: f"{stem}: {why}" for stem, (_, why) in index.broken().items() if stem not in unlisted},
        left_out=[f"{stem}: neither in train.txt nor in val.txt" for stem in index.unlisted]
        + [f"{_short(file)}: no format Pillow reads" for file in index.ignored],
    )


def index_folder(path: str | Path) -> FolderIndex:
    """The names in a folder with `images/` and `masks/`.

    Raises:
        DataError: no such layout, no image Pillow can read, or a split file that lists a stem twice.
    """
    path = Path(path).expanduser()
    lacking = [f"{part}/" for part in ("images", "masks") if not (path / part).is_dir()]
    if lacking:
        there = "there is no such folder" if not path.is_dir() else f"it has no {' and no '.join(lacking)}"
        raise DataError(f"{path}: {there}; a data folder holds images/ and masks/ with files of the same stems")
    images, other_images = _by_stem(path / "images")
    masks, other_masks = _by_stem(path / "masks")
    if not images:
        raise DataError(f"{path / 'images'}: holds no file of a format that Pillow reads (PNG, JPEG, TIFF, ...)")
    listed = {split: _read_stems(file) for split in SPLITS if (file := path / f"{split}.txt").is_file()}
    return FolderIndex(path, images, masks, listed, [*other_images, *other_masks])


def _by_stem(folder: Path) -> tuple[dict[str, list[Path]], list[Path]]:
    Image.init()
    readable = {suffix for suffix, name in Image.registered_extensions().items() if name in Image.OPEN}
    files, ignored = defaultdict(list), []
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in readable and file.is_file():
            files[file.stem].append(file)
        elif not file.name.startswith("."):
            ignored.append(file)
    return dict(files), ignored


def _read_stems(file: Path) -> list[str]:
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not a readable text file ({error}): write one stem a line, in UTF-8") from error
    stems = [line for line in lines if line]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1}) if len(set(stems)) < len(stems) else []
    if twice:
        raise DataError(listing(f"{file}: stems that are listed twice:", twice))
    return stems


def _short(file: Path) -> str:
    return f"{file.parent.name}/{file.name}"
