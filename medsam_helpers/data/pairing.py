"""Which mask file belongs to which image file, by their names."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from medsam_helpers.data.case import Finding

# What people add to the name of an image to name its mask.
_ADDED = re.compile(r"(?i)^(?:mask[_-]?|p(?=\d))|(?:[_-](?:mask|segmentation|seg|gt|label|lesion))?(?:_\d+)?$")
_NO_CASES = ("thumbs.db", "desktop.ini")
FORMATS = {  # what people have beside pictures, and what to do
    ".dcm": "DICOM is not read: save PNG or TIFF",
    ".nii": "NIfTI is not read: save slices as PNG or TIFF",
    ".gz": "NIfTI and archives are not read: save slices as PNG or TIFF",
    ".npy": "NumPy arrays are not read: save PNG or TIFF, with Image.fromarray(array).save(...)",
    ".json": "annotations are not read: draw them into PNG files",
}


@dataclass(frozen=True)
class Pairs:
    """Files by the name of their case, and what is to be said of the rest."""

    images: dict[str, Path] = field(default_factory=dict)
    masks: dict[str, list[Path]] = field(default_factory=dict)  # several are one mask together
    findings: Sequence[Finding] = ()


def pair(images: Path, masks: Path) -> Pairs:
    """The cases of a folder of images and one of masks.

    A mask belongs to the image of the same stem; else of the same stem in other letters (upper case, another Unicode
    form); else of the stem without what was added: `_mask`, `_segmentation`, `_1`, a `p` before a number. Several
    masks that belong to one image by an addition are its mask together.

    Returns:
        What can be paired; errors for images without a mask, masks without an image, and two files of one stem.
    """
    findings = list[Finding]()
    image_of, mask_of = (files_by_stem(folder, findings) for folder in (images, masks))
    for name, files in [*image_of.items(), *mask_of.items()]:
        if len(files) > 1:
            told = f"{name}: {', '.join(map(_short, files))}: keep one"
            findings.append(Finding(name, "duplicate stem", "error", told))
    loosely: dict[str, list[str]] = defaultdict(list)
    barely: dict[str, list[Path]] = defaultdict(list)
    for name in image_of:
        loosely[name.casefold()].append(name)
    found: dict[str, list[Path]] = defaultdict(list)
    for name, files in mask_of.items():
        for key in (name, name.casefold(), _ADDED.sub("", name).casefold()):
            owners = [name] if key == name and name in image_of else loosely.get(key, [])
            if len(owners) == 1 and (key == name or not mask_of.get(owners[0])):
                found[owners[0]] += files
                if owners[0] != name:
                    barely[owners[0]] += files
                break
        else:
            told = f"{name}: {_short(files[0])} has no partner in {images.name}/"
            findings.append(Finding(name, "missing image", "error", told))
    if barely:
        first, *_ = barely.items()
        told = f"{', '.join(map(_short, first[1]))} taken as the mask of {_short(image_of[first[0]][0])}"
        more = f", and {len(barely) - 1} more like it" if len(barely) > 1 else ""
        findings.append(Finding("", "paired by a part of the name", "note", told + more))
    for name in [name for name in image_of if name not in found]:
        told = f"{name}: {_short(image_of[name][0])} has no partner in {masks.name}/"
        findings.append(Finding(name, "missing mask", "error", told))
    return Pairs({name: files[0] for name, files in image_of.items()}, dict(found), findings)


def is_clutter(file: Path) -> bool:
    """Whether a file is one that operating systems leave behind."""
    return file.name.startswith(".") or file.name.lower() in _NO_CASES


def files_by_stem(folder: Path, findings: list[Finding]) -> dict[str, list[Path]]:
    """The picture files of a folder by stem, sorted; a finding is added for each other file that is not clutter."""
    Image.init()
    readable = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    files: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(folder.iterdir()):
        if is_clutter(file):
            continue
        shown = _short(file)
        if not file.name.isprintable():  # it would reach terminals, tables and pages as it is
            shown = f"{file.name!a} in {folder.name}/"
            why = "characters that cannot be shown, or no UTF-8: rename it"
        elif file.is_file() and file.suffix.lower() in readable:
            files[unicodedata.normalize("NFC", file.stem)].append(file)
            continue
        elif file.is_symlink() and not file.exists():
            why = f"a link to {file.readlink()}, which is not there"
        elif file.is_dir():
            inside = sum(child.is_file() for child in file.rglob("*"))
            why = f"a folder of {inside} files, which are not read: move them up"
        elif not file.is_file():
            why = "a pipe or a device, not a file"
        else:
            suffix = ".dcm" if file.read_bytes()[128:132] == b"DICM" else file.suffix.lower()
            why = FORMATS.get(suffix, "no format that Pillow reads")
        findings.append(Finding("", "ignored file", "warning", f"{shown}: {why}"))
    return files


def _short(file: Path) -> str:
    return f"{file.parent.name}/{file.name}"
