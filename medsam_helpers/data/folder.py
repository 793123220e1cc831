"""A folder with `images/` and `masks/` as a data source: the layout of Kvasir-SEG's archive, and of one's own data."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from PIL import Image

from medsam_helpers.data.case import SPLITS, Case, Dataset, SplitName
from medsam_helpers.data.reading import make_case, read_image, read_mask
from medsam_helpers.data.splits import Selection, build_dataset, listing, make_splits
from medsam_helpers.errors import DataError


@dataclass(frozen=True)
class FolderIndex:
    """What lies in a folder, before any pixel is read."""

    path: Path
    images: Mapping[str, Sequence[Path]]  # the files of a stem; more than one is a mistake
    masks: Mapping[str, Sequence[Path]]
    listed: Mapping[SplitName, Sequence[str]]  # the stems in each of `train.txt`, `dev.txt`, `val.txt` that is there
    ignored: Sequence[Path]  # what Pillow has no reader for, hidden files apart

    @cached_property
    def stems(self) -> list[str]:
        """Every stem of an image, a mask or a split file, sorted."""
        return sorted({*self.images, *self.masks}.union(*self.listed.values()))

    @cached_property
    def unlisted(self) -> list[str]:
        """The stems that no split gets, because `train.txt` and `val.txt` are both there and leave them out."""
        listed = set[str]().union(*self.listed.values())
        return [stem for stem in self.stems if stem not in listed] if {"train", "val"} <= set(self.listed) else []

    def broken(self) -> dict[str, tuple[str, str]]:
        """Stem -> (problem, detail) for each stem that is not exactly one image and one mask."""
        found = {}
        for stem in self.stems:
            images, masks = self.images.get(stem, ()), self.masks.get(stem, ())
            twice = [file for files in (images, masks) if len(files) > 1 for file in files]
            if not images and not masks:
                found[stem] = ("missing file", "listed in a split file, but there is no image and no mask of that stem")
            elif not images:
                found[stem] = ("missing image", f"{_short(masks[0])} has no partner in images/")
            elif not masks:
                found[stem] = ("missing mask", f"{_short(images[0])} has no partner in masks/")
            elif twice:
                found[stem] = ("duplicate stem", f"{', '.join(map(_short, twice))}: keep one")
        return found

    def load(self, stem: str) -> Case:
        """One case, or `DataError` for a bad one."""
        return make_case(stem, read_image(self.images[stem][0]), read_mask(self.masks[stem][0]))


def folder_dataset(path: str | Path, selection: Selection) -> Dataset:
    """The cases of a folder with `images/` and `masks/`: files of one stem belong together, whatever their formats.

    `train.txt`, `dev.txt` and `val.txt` hold one stem a line; what is not given is drawn as `make_splits` says, before
    any limit is applied. `left_out` names stems that no file lists, and files Pillow cannot read.

    Args:
        path: the folder.
        selection: limits, seed, and whether to go on without the bad cases.
    Raises:
        DataError: no such layout; split files that contradict each other; or bad cases (unreadable, image and mask
            of different sizes, no partner, two files of one stem, empty mask), with the list of them.
    """
    index = index_folder(path)
    unlisted = [f"{stem}: neither in train.txt nor in val.txt" for stem in index.unlisted]
    return build_dataset(
        index.path.resolve().name,
        make_splits(index.stems, selection.split_seed, index.listed),
        index.load,
        selection,
        licence="not stated: the terms of whoever the folder is from",
        citation="not stated: cite whoever the folder is from",
        bad={stem: f"{stem}: {why}" for stem, (_, why) in index.broken().items() if stem not in index.unlisted},
        left_out=unlisted + [f"{_short(file)}: no format Pillow reads" for file in index.ignored],
    )


def index_folder(path: str | Path) -> FolderIndex:
    """What lies in a folder; `DataError` for another layout, no image, or a stem that a split file lists twice."""
    path = Path(path).expanduser()
    lacking = [f"{part}/" for part in ("images", "masks") if not (path / part).is_dir()]
    if lacking:
        there = f"it has no {' and no '.join(lacking)}" if path.is_dir() else "there is no such folder"
        raise DataError(f"{path}: {there}; a data folder holds images/ and masks/ with files of the same stems")
    Image.init()
    readable = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    files: dict[str, dict[str, list[Path]]] = {"images": defaultdict(list), "masks": defaultdict(list)}
    ignored = []
    for file in sorted([*(path / "images").iterdir(), *(path / "masks").iterdir()]):
        if file.suffix.lower() in readable and file.is_file():
            files[file.parent.name][file.stem].append(file)
        elif not file.name.startswith("."):
            ignored.append(file)
    if not files["images"]:
        raise DataError(f"{path / 'images'}: holds no file of a format that Pillow reads (PNG, JPEG, TIFF, ...)")
    listed = {split: _read_stems(file) for split in SPLITS if (file := path / f"{split}.txt").is_file()}
    return FolderIndex(path, files["images"], files["masks"], listed, ignored)


def _read_stems(file: Path) -> list[str]:
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not a readable text file ({error}): write one stem a line, in UTF-8") from error
    stems = Counter(line for line in lines if line)
    if twice := sorted(stem for stem, count in stems.items() if count > 1):
        raise DataError(listing(f"{file}: stems that are listed twice:", twice))
    return list(stems)


def _short(file: Path) -> str:
    return f"{file.parent.name}/{file.name}"
