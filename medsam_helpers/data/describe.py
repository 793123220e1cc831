"""What is found in a case when it is looked at: its sizes, and the mistakes that people make, with evidence."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image
from scipy import ndimage
from tqdm.contrib.concurrent import thread_map

from medsam_helpers.data.case import Case, Finding
from medsam_helpers.data.duplicates import thumbnail
from medsam_helpers.errors import DataError
from medsam_helpers.prompts import mask_to_boxes

_FLAT = 24  # gray levels between the darkest and the brightest percent of an image that shows next to nothing


@dataclass(frozen=True)
class Checked:
    """A case that can be used, as it was found; without its pixels."""

    name: str
    findings: tuple[Finding, ...]
    height: int
    width: int
    lesion_share: float
    lesions: int
    mask_value: int | None
    image_digest: str
    thumbnail: np.ndarray


def check_cases(
    names: Sequence[str], load: Callable[[str], Case], show_progress: bool = True, describe: str = "check cases"
) -> tuple[list[Checked], list[Finding]]:
    """The cases that can be used, with what is to be known about each, and an error for each of the others."""

    def check(name: str) -> Checked | Finding:
        try:
            case = load(name)
        except DataError as error:
            return Finding(name, error.problem, "error", str(error))
        lesions = len(mask_to_boxes(case.mask, "components")) if case.mask.any() else 0
        found = *case.findings, *(Finding(name, *doubt) for doubt in _doubts(case, lesions))
        share, small = float(case.mask.mean()), thumbnail(case.image)
        return Checked(name, found, *case.size_hw, share, lesions, case.mask_value, case.image_digest, small)

    # Threads help: Pillow decodes outside Python's global lock.
    found = thread_map(check, names, desc=describe, delay=2, disable=not show_progress)
    return [one for one in found if isinstance(one, Checked)], [one for one in found if isinstance(one, Finding)]


def _doubts(case: Case, lesions: int) -> Iterator[tuple[str, Literal["warning", "note"], str]]:
    """Problem, severity, detail: an image shows next to nothing; a mask is the wrong way round, an outline, or tiny."""
    gray, mask = case.image[::4, ::4].max(axis=2), case.mask
    dark, bright = np.percentile(gray, [1, 99])
    if bright - dark < _FLAT:
        told = f"98 % of its pixels lie between {dark:.0f} and {bright:.0f} of 255"
        yield "nearly constant image", "warning", f"{told}: a few extreme values, or the wrong scale? --window 1%:99%"
    if not lesions:
        yield "no lesion", "note", "an image without a lesion: a box cannot be drawn round it"
        return
    if mask.all():
        yield "all foreground", "warning", "the mask covers the whole image"
    elif mask.mean() > 0.5 and mask[[0, 0, -1, -1], [0, -1, 0, -1]].all():
        told = f"it covers {100 * mask.mean():.0f} % of the image and all four corners"
        yield "inverted mask", "warning", f"{told}; if black is the lesion: --classes 0"
    else:
        inside = mask[ndimage.find_objects(mask.astype(np.uint8))[0]]
        filled = ndimage.binary_fill_holes(inside).sum() if inside.mean() < 0.35 else 0
        if inside.sum() < 0.5 * filled:
            told = f"{inside.sum()} pixels enclose {filled - inside.sum()} others"
            yield "outline", "warning", f"{told}: an outline in place of the area? fill it"
    if lesions > 1:
        yield "several lesions", "note", f"{lesions} connected components"
    if _is_tiny(mask):
        area = f"{mask.sum()} pixels of {mask.shape[1]} x {mask.shape[0]}"
        yield "vanishes in training", "warning", f"{area} are less than half a cell of the model's grid: crop closer"


def _is_tiny(mask: np.ndarray) -> bool:
    """Whether nothing of it is left on the grid of 256 x 256 cells that a decoder is trained on."""
    cell = max(1, round(max(mask.shape) / 256))
    if np.asarray(Image.fromarray(mask.view(np.uint8)).reduce(cell)).any():  # it fills a cell: no need to ask further
        return False
    from medsam_helpers.geometry import ImageTransform  # here, since torch takes long to load

    return not ImageTransform(mask.shape).mask_to_target(mask).any()


def doubtful_masks(checked: Sequence[Checked]) -> list[Finding]:
    """Errors of the masks together: classes that are spread over binary files, one a file, or all masks inverted."""
    of_value: dict[int, list[str]] = defaultdict(list)
    for case in checked:
        if case.mask_value:
            of_value[case.mask_value].append(case.name)
    if len(of_value) > 1:
        rarest = min(of_value.values(), key=len)
        told = ", ".join(f"{value} in {len(names)} ({names[0]})" for value, names in sorted(of_value.items()))
        do = f"say which are the lesion: --classes {','.join(map(str, sorted(of_value)))} for all of them"
        told = f"{rarest[0]}: the lesion's value differs between masks, as classes do: {told}; {do}"
        return [Finding(rarest[0], "label map", "error", told)]
    inverted = [found for case in checked for found in case.findings if found.problem == "inverted mask"]
    if len(inverted) > len(checked) / 2 and of_value:
        told = f"{inverted[0].case}: {len(inverted)} of {len(checked)} masks seem inverted: {inverted[0].detail}"
        return [Finding(inverted[0].case, "inverted mask", "error", f"{told}; if white is: --classes 255")]
    return []


def absent_classes(checked: Sequence[Checked]) -> list[Finding]:
    """A warning for each of the classes that were asked for and are in no mask."""
    found = Counter(one.detail for case in checked for one in case.findings if one.problem == "class not in mask")
    words = [word for word, count in found.items() if count == len(checked)]
    return [Finding("", "class in no mask", "warning", f"{word}, of --classes: is it mistyped?") for word in words]
