"""What every data source yields: `Case`, one image with its mask, in `Cases`, a lazy sequence of them."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple, Self, overload

import numpy as np

from medsam_helpers.errors import DataError

SplitName = Literal["train", "dev", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "dev", "val", "test")


class Finding(NamedTuple):
    """What is to be known about a case, or about the whole data set where `case` is empty."""

    case: str
    problem: str  # its kind
    severity: Literal["error", "warning", "note"]
    detail: str


def set_of(case: str) -> str:
    """The data set that a case of several is named after; empty where there is one only."""
    return case.partition("::")[0] if "::" in case else ""


def array_digest(array: np.ndarray) -> str:
    """SHA-256 of an array's type, shape and values."""
    return hashlib.sha256(f"{array.dtype.str}{array.shape}".encode() + array.tobytes()).hexdigest()


@dataclass(frozen=True, eq=False)
class Case:
    """One image and its reference mask.

    Args:
        name: unique inside its data set; a file stem for folders.
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) bool, True on the lesion.
        ignored: (H, W) bool, True where nothing counts, in loss and scores; None where all counts.
        labels: (H, W) int, which label each pixel of the lesion has, 0 elsewhere; None where the mask is binary.
        mask_value: what stood for the lesion in the file of a binary mask, where it was read from one.
        findings: what its reader has to say.
    Raises:
        DataError: wrong dtype or shape, or mask and image differ in size.
    """

    name: str
    image: np.ndarray = field(repr=False)
    mask: np.ndarray = field(repr=False)
    ignored: np.ndarray | None = field(default=None, repr=False)
    labels: np.ndarray | None = field(default=None, repr=False)
    mask_value: int | None = field(default=None, repr=False)
    findings: tuple[Finding, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if self.image.dtype != np.uint8 or self.image.ndim != 3 or self.image.shape[2] != 3:
            raise DataError(f"{self.name}: image must be (H, W, 3) uint8, is {self.image.shape} {self.image.dtype}")
        if self.mask.dtype != np.bool_ or self.mask.shape != self.image.shape[:2]:
            wrong = f"{self.mask.shape} {self.mask.dtype}"
            raise DataError(f"{self.name}: mask must be bool of the image's size {self.image.shape[:2]}, is {wrong}")

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.mask.shape[0], self.mask.shape[1]

    @property
    def regions(self) -> np.ndarray:
        """(H, W) what `mask_to_boxes` draws boxes round: the labels, or the mask where it is binary."""
        return self.mask if self.labels is None else self.labels

    def counted(self, prediction: np.ndarray) -> np.ndarray:
        """The prediction (H, W) bool without the pixels that count nowhere."""
        return prediction if self.ignored is None else prediction & ~self.ignored

    @cached_property
    def image_digest(self) -> str:
        """SHA-256 of the decoded pixels (and their shape): the key of this image's embedding."""
        return array_digest(self.image)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over image and mask; changes with one pixel of either."""
        parts = [array for array in (self.mask, self.ignored, self.labels) if array is not None]
        return hashlib.sha256((self.image_digest + "".join(map(array_digest, parts))).encode()).hexdigest()


class Cases(Sequence[Case]):
    """A lazy, ordered sequence of cases: names are known at once, pixels are decoded when asked for."""

    def __init__(self, names: Sequence[str], load: Callable[[str], Case]) -> None:
        self.names = list(names)
        self.load = load

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Case: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Case | Self:
        return self.named(self.names[index]) if isinstance(index, slice) else self.load(self.names[index])

    def named(self, names: Sequence[str]) -> Self:
        """The cases of these names, in this order."""
        return type(self)(names, self.load)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over names and pixels of all cases, whatever their order. Decodes every case once."""
        with ThreadPoolExecutor() as pool:  # Pillow decodes outside Python's global lock
            lines = sorted(pool.map(lambda name: f"{name} {self.load(name).digest}", self.names))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@dataclass(frozen=True)
class Dataset:
    """Its splits with their terms. `dev` is for choosing (early stopping, sweeps), `val` is scored once, last."""

    name: str
    train: Cases
    dev: Cases
    val: Cases
    licence: str
    citation: str
    left_out: tuple[str, ...] = ()  # the cases that were skipped on request, each with the reason
    test: Cases = field(default_factory=lambda: Cases([], dict[str, Case]().__getitem__))  # never used unless asked for
    findings: tuple[Finding, ...] = ()  # of the cases in use, and of the whole
    group_of: Mapping[str, str] = field(default_factory=dict)  # case -> patient or video; empty: each on its own

    @property
    def splits(self) -> dict[SplitName, Cases]:
        """The splits by name; test only where there is one."""
        found: dict[SplitName, Cases] = {"train": self.train, "dev": self.dev, "val": self.val}
        return found | ({"test": self.test} if self.test else {})

    def with_lesions(self) -> Self:
        """The same without the images that hold no lesion: there is nothing to draw a box round."""
        normal = {finding.case for finding in self.findings if finding.problem == "no lesion"}
        kept: Any = {}
        for split, cases in self.splits.items():
            kept[split] = cases.named([name for name in cases.names if name not in normal])
        return replace(self, **kept) if normal else self

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the splits; changes with one pixel, or when a case moves between splits."""
        return hashlib.sha256("\n".join(cases.digest for cases in self.splits.values()).encode()).hexdigest()

    def __str__(self) -> str:
        return f"{self.name}: {', '.join(f'{len(cases)} {split}' for split, cases in self.splits.items())}"
