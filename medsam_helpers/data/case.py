"""`Case`, one image with its mask, and `Cases`, a lazy sequence of them: what every data source yields."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, overload

import numpy as np

from medsam_helpers.errors import DataError

SplitName = Literal["train", "dev", "val"]
SPLITS: tuple[SplitName, ...] = ("train", "dev", "val")


def _sha256_of_array(array: np.ndarray) -> str:
    header = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.sha256(header + np.ascontiguousarray(array).tobytes()).hexdigest()


@dataclass(frozen=True, eq=False)
class Case:
    """One image and its reference mask.

    Args:
        name: unique inside its data set; a file stem for folders.
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) bool, True on the lesion.
    Raises:
        DataError: wrong dtype or shape, or mask and image differ in size.
    """

    name: str
    image: np.ndarray = field(repr=False)
    mask: np.ndarray = field(repr=False)

    def __post_init__(self) -> None:
        if self.image.dtype != np.uint8 or self.image.ndim != 3 or self.image.shape[2] != 3:
            raise DataError(f"{self.name}: image must be (H, W, 3) uint8, is {self.image.shape} {self.image.dtype}")
        if self.mask.dtype != np.bool_ or self.mask.shape != self.image.shape[:2]:
            raise DataError(
                f"{self.name}: mask must be bool of the image's size {self.image.shape[:2]}, "
                f"is {self.mask.shape} {self.mask.dtype}"
            )

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.mask.shape

    @cached_property
    def image_digest(self) -> str:
        """SHA-256 of the decoded pixels (and their shape): the key of this image's embedding."""
        return _sha256_of_array(self.image)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over image and mask; changes with one pixel of either."""
        return hashlib.sha256((self.image_digest + _sha256_of_array(self.mask)).encode()).hexdigest()


class Cases(Sequence[Case]):
    """A lazy, ordered sequence of cases: names are known at once, pixels are decoded when asked for.

    >>> blank = lambda name: Case(name, np.zeros((4, 6, 3), np.uint8), np.ones((4, 6), bool))
    >>> cases = Cases(["a", "b", "c"], blank)
    >>> len(cases), cases[1].name, cases[:2].names
    (3, 'b', ['a', 'b'])
    """

    def __init__(self, names: Sequence[str], load: Callable[[str], Case]) -> None:
        self.names = list(names)
        self._load = load

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Case: ...
    @overload
    def __getitem__(self, index: slice) -> Cases: ...
    def __getitem__(self, index: int | slice) -> Case | Cases:
        if isinstance(index, slice):
            return Cases(self.names[index], self._load)
        return self._load(self.names[index])

    def named(self, names: Sequence[str]) -> Cases:
        """The cases of these names, in this order."""
        return Cases(names, self._load)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over names and pixels of all cases, whatever their order. Decodes every case once."""
        lines = sorted(f"{name} {case.digest}" for name, case in zip(self.names, self, strict=True))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@dataclass(frozen=True)
class Dataset:
    """Three splits with their terms.

    `dev` is for choosing (early stopping, sweeps), `val` is scored once at the end.
    `left_out` names the cases that were skipped on request, each with the reason.
    """

    name: str
    train: Cases
    dev: Cases
    val: Cases
    licence: str
    citation: str
    left_out: tuple[str, ...] = ()

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the three splits; changes with one pixel, or when a case moves between splits."""
        return hashlib.sha256("\n".join([self.train.digest, self.dev.digest, self.val.digest]).encode()).hexdigest()

    def __str__(self) -> str:
        return f"{self.name}: {len(self.train)} train, {len(self.dev)} dev, {len(self.val)} val"
