"""A folder of images and masks as a data source: the layouts that people have, or words on what to move."""

import difflib
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from medsam_helpers.data.case import SPLITS, Case, Finding, SplitName
from medsam_helpers.data.pairing import FORMATS, Pairs, is_clutter, pair
from medsam_helpers.data.reading import read_case
from medsam_helpers.data.sources import Selection, Source
from medsam_helpers.data.splits import listing
from medsam_helpers.errors import DataError, some

_IMAGES = ("images", "image", "imgs", "original", "originals", "etis-laribpolypdb")
_MASKS = ("masks", "mask", "ground truth", "ground_truth", "groundtruth", "gt", "segmentations")
_SPLIT_OF: dict[str, SplitName] = dict(zip(SPLITS, SPLITS, strict=True))
_SPLIT_OF |= {"training": "train", "valid": "val", "validation": "val"}
_LISTS = {f"{split}.txt": split for split in SPLITS}
_PROSE = ("readme", "licen", "copying", "citation")  # how the text files begin that data sets come with
_Part = tuple[SplitName | None, Path, Path]  # its split, where the layout says it, and the folders of images and masks


def folder_source(path: str | Path, selection: Selection) -> Source:
    """The cases of a folder with `images/` and `masks/`, or of one of the other layouts that are in use.

    Also `images/train` and `masks/train`, `train/images` and `train/masks` (and so on), and the names in which
    CVC-ClinicDB and ETIS-Larib come. `train.txt`, `dev.txt`, `val.txt` and `test.txt` hold a file name a line, with or
    without its extension; what is not given is drawn as `make_splits` says. `pair` says which mask belongs to which
    image. `DataError`: another layout, no image, or lists that contradict each other.
    """
    path = Path(path).expanduser()
    parts = list(_parts(path))
    if not parts:
        raise DataError(_advice(path))
    pairs, findings = Pairs(), list[Finding]()
    given: dict[SplitName, list[str]] = defaultdict(list)
    for split, images, masks in parts:
        found = pair(images, masks)
        if twice := pairs.images.keys() & found.images.keys():
            raise DataError(f"{path}: {sorted(twice)[0]} is the name of two cases: rename the files of one")
        pairs = Pairs(pairs.images | found.images, pairs.masks | found.masks, [*pairs.findings, *found.findings])
        if split:
            given[split] += found.images
    if not pairs.images:
        why = [finding.detail for finding in pairs.findings] or ["it is empty"]
        raise DataError(listing(f"{parts[0][1]}: holds no image that can be read:", why))
    if not pairs.masks:
        image = next(iter(pairs.images.values()))
        why = [finding.detail for finding in pairs.findings if finding.problem != "missing mask"]
        head = f"{path}: no mask has the name of an image: name the mask of {image.name} {image.stem}.png"
        raise DataError(listing(head, why))
    files = {split: path / name for name, split in _LISTS.items() if os.path.lexists(path / name)}
    given = {split: _read_list(file, pairs) for split, file in files.items()} or given
    listed = {name for members in given.values() for name in members}
    names = sorted(pairs.images.keys() | listed)
    unlisted = [name for name in names if name not in listed] if {"train", "val"} <= given.keys() else []
    if unlisted:
        told = f"{len(unlisted)} cases are in no list ({some(unlisted)})"
        findings.append(Finding("", "in no split", "note", told))
    texts = [file.name for file in sorted(path.glob("*.txt")) if not file.stem.lower().startswith(_PROSE)]
    if others := [name for name in texts if name not in _LISTS]:
        told = f"{', '.join(others)}: not read; the lists are {', '.join(_LISTS)}"
        findings.append(Finding("", "unknown list", "warning", told))
    for name in sorted(listed - pairs.images.keys() - {finding.case for finding in pairs.findings}):
        near = "".join(f"; {like}?" for like in difflib.get_close_matches(name, pairs.images, 1))
        told = f"{name}: listed in a split file, but there is no image of that name{near}"
        findings.append(Finding(name, "missing file", "error", told))
    load = partial(_load_case, pairs, selection)
    shown = "".join(letter if letter.isprintable() else "?" for letter in path.resolve().name)
    return Source(shown, names, dict(given), load, [*findings, *pairs.findings], unlisted)


def _load_case(pairs: Pairs, selection: Selection, name: str) -> Case:
    return read_case(name, pairs.images[name], pairs.masks[name], selection)


def _parts(path: Path) -> Iterator[_Part]:
    """The pairs of folders of the first layout that fits."""
    folders = _folders(path)
    images, masks = _one_of(folders, _IMAGES), _one_of(folders, _MASKS)
    if images and masks:
        inner, others = _folders(images), _folders(masks)
        both = sorted(inner.keys() & others.keys())
        if not both or any(file.is_file() and not is_clutter(file) for file in images.iterdir()):
            yield None, images, masks
        else:
            yield from ((_SPLIT_OF.get(name), inner[name], others[name]) for name in both)
        return
    for name in sorted(folders.keys() & _SPLIT_OF.keys()):
        inner = _folders(folders[name])
        images, masks = _one_of(inner, _IMAGES), _one_of(inner, _MASKS)
        if images and masks:
            yield _SPLIT_OF[name], images, masks


def _folders(path: Path) -> dict[str, Path]:
    return {child.name.lower(): child for child in sorted(path.iterdir()) if child.is_dir()} if path.is_dir() else {}


def _one_of(folders: Mapping[str, Path], names: Iterable[str]) -> Path | None:
    return next((folders[name] for name in names if name in folders), None)


def _advice(path: Path) -> str:
    """What to do about a folder of another layout."""
    if not path.is_dir():
        return f"{path}: there is no such folder"
    wanted = "a data folder holds images/ and masks/ with files of the same names"
    folders = _folders(path)
    if any(path.glob("*.json")) and _one_of(folders, _IMAGES):
        name = next(path.glob("*.json")).name
        return f"{path}: {name} may be COCO, which is not read: draw its polygons into PNG files in masks/; {wanted}"
    beside = [file for file in sorted(path.rglob("*_mask*.*")) if file.is_file()]
    if beside:
        shown = beside[0].relative_to(path)
        return f"{path}: masks lie beside their images ({shown}): move them to masks/, the images to images/; {wanted}"
    other = next((file for file in sorted(path.rglob("*")) if file.suffix.lower() in FORMATS and file.is_file()), None)
    if other:
        return f"{path}: {other.relative_to(path)}: {FORMATS[other.suffix.lower()]}; {wanted}"
    lacking = [f"{name}/" for name, known in (("images", _IMAGES), ("masks", _MASKS)) if not _one_of(folders, known)]
    return f"{path}: it has no {' and no '.join(lacking)}; {wanted}"


def _read_list(file: Path, pairs: Pairs) -> list[str]:
    """The cases of a list, found with or without the extension of a file."""
    if not file.is_file():
        raise DataError(f"{file}: a dangling link, a folder or a pipe, not a list: put a text file there, or remove it")
    data = file.read_bytes()
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not a readable text file ({error}): write one name a line, in UTF-8") from error
    lines = [unicodedata.normalize("NFC", line.strip()) for line in text.splitlines() if line.strip()]
    names = [line if line in pairs.images or Path(line).stem not in pairs.images else Path(line).stem for line in lines]
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise DataError(listing(f"{file}: names that are listed twice:", twice))
    return names
