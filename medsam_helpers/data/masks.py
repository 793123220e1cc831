"""What the values of a mask file say: lesion or not, or labels among which its owner has to choose."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from medsam_helpers.errors import ConfigError, DataError

ALL = "all"


class MaskReading(NamedTuple):
    """A mask file as it was understood, each (H, W)."""

    mask: np.ndarray  # bool, True on the lesion
    ignored: np.ndarray | None  # bool, True where nothing counts; None without such a label
    labels: np.ndarray | None  # int, 1 to N for the chosen labels, 0 elsewhere; None for a binary mask
    value: int | None = None  # what stands for the lesion in a binary mask, full scale written 255
    soft: float = 0.0  # share of the pixels between the ends of a binary mask
    absent: Collection[str] = ()  # the classes that were asked for and are not in it


def read_values(
    values: np.ndarray,
    coloured: bool = False,
    shown: str = "mask",
    classes: Sequence[str] = (),
    ignore: Sequence[str] = (),
) -> MaskReading:
    """What the values of a mask file say; without `classes` it has to be binary.

    Args:
        values: (H, W) int: gray levels, palette entries, or colours as 0xRRGGBB.
        classes: labels that are the lesion: numbers of gray levels or palette entries, colours as "#rrggbb", or "all"
            but 0.
        ignore: the same; left out of loss and scores.
    Raises:
        ConfigError: a word that is no label.
        DataError: the mask is no binary one and `classes` are not given (problem "label map"), or it is a picture
            (problem "photograph").
    """
    if ALL in ignore or (ignore and not classes):
        raise ConfigError("ignore names the labels that count nowhere; classes must name those of the lesion")
    lesion, nowhere = _numbers(classes), _numbers(ignore)
    kind = kind_of(values, coloured)
    if kind == "photograph":
        raise DataError(f"{shown}: its values run through all shades: a photograph or an overlay, not a mask", kind)
    if not classes:
        if kind == "labels":
            raise DataError(f"{shown}: a label map, not one lesion: {_census(values, coloured)}", "label map")
        full, top = _full_scale(values), int(values.max())
        if kind == "lossy":
            return MaskReading(values > full // 2, None, None, 255, float(((values > 0) & (values < full)).mean()))
        return MaskReading(values > 0, None, None, (255 if top == full else top) or None)
    ignored = np.isin(values, nowhere) if ignore else None
    chosen = values != 0 if ALL in classes else np.isin(values, lesion)
    chosen = chosen if ignored is None else chosen & ~ignored
    _, numbers = np.unique(np.where(chosen, values.astype(np.int64), -1), return_inverse=True)
    absent = {word for word in classes if word != ALL and not (values == _numbers([word])[0]).any()}
    return MaskReading(chosen, ignored, np.where(chosen, numbers.reshape(values.shape), 0), absent=absent)


def _numbers(words: Sequence[str]) -> list[int]:
    """The labels that the words name: "2" is 2, "#ff0000" is 0xFF0000."""
    try:
        return [int(word[1:], 16) if word.startswith("#") else int(word) for word in words if word != ALL]
    except ValueError:
        raise ConfigError(f"labels {','.join(words)}: use numbers, colours like '#ff0000', or {ALL}") from None


def kind_of(values: np.ndarray, coloured: bool = False) -> str:
    """What a mask is by its values: "binary" (0 and one other), "lossy" (near both ends), "labels", "photograph".

    Labels fill areas of one value; what JPEG or soft edges leave between the ends never fills a square of 3 x 3.
    Arguments as of `read_values`; colours have no ends.
    """
    distinct = np.flatnonzero(np.bincount(values.ravel())) if values.dtype == np.uint8 else np.unique(values)
    low, high = distinct[0], distinct[-1]
    if low >= 0 and (len(distinct) == 1 or (len(distinct) == 2 and low == 0)):
        return "binary"
    between, flat = (values != 0) & (values != high), _flat(values)
    solid = (between[1:-1, 1:-1] & flat).sum() / max(1, between.sum())  # share that lies inside an area of one value
    full = _full_scale(values)
    middle = (values > full / 8) & (values < full - full / 8)
    solid_middle = (middle[1:-1, 1:-1] & flat).sum() / max(1, middle.sum())
    if not coloured and 0 <= low <= full / 8 and high >= full - full / 8 and middle.mean() < 0.2:
        few, many = len(distinct) <= 8, len(distinct) > 24  # so many do not fit near the ends as labels do
        noisy_ends = many or solid < (0.2 if not few else 1e-9)
        if len(distinct) > 3 and solid_middle < 0.05 and noisy_ends and not (few and middle.any()):
            return "lossy"
    return "photograph" if len(distinct) > 32 and solid < 0.05 else "labels"


def _full_scale(values: np.ndarray) -> int:
    return 255 if values.max() <= 255 else 65535


def _flat(values: np.ndarray) -> np.ndarray:
    """(H - 2, W - 2) bool: all nine of a pixel and its neighbours are equal."""
    row = (values[:, :-2] == values[:, 1:-1]) & (values[:, 1:-1] == values[:, 2:])
    column = (values[:-2, 1:-1] == values[1:-1, 1:-1]) & (values[1:-1, 1:-1] == values[2:, 1:-1])
    return row[:-2] & row[1:-1] & row[2:] & column


def _census(values: np.ndarray, coloured: bool) -> str:
    """The values with their shares, and what to add to a command."""
    found, counts = np.unique(values, return_counts=True)
    names = [f"#{value:06x}" if coloured else str(value) for value in found]
    shares = [f"{name} ({100 * count / values.size:.1f} %)" for name, count in zip(names, counts, strict=True)]
    more = f" and {len(shares) - 6} more" if len(shares) > 6 else ""
    others = [name for name, value in zip(names, found, strict=True) if value]
    lesion = ",".join(others) if len(others) <= 6 else ALL
    lesion, last = (f"'{word}'" if coloured else word for word in (lesion, others[-1]))  # to a shell # is a comment
    advice = f"--classes {lesion} (in Python `classes`) for all of them; --ignore {last} leaves such pixels out"
    return f"{', '.join(shares[:6])}{more}. Say which are the lesion: {advice}"
