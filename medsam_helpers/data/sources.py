"""What there is to load, and what to take of it: the names of the sources, and the settings of a selection."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from medsam_helpers.settings import Settings, Words

if TYPE_CHECKING:
    from medsam_helpers.data.case import Case, Finding, SplitName

SOURCES = ("phantom", "phantom-ultrasound", "kvasir", "breast")


class Selection(Settings):
    """What to take from a source, and how to read it."""

    train_limit: int | None = Field(None, ge=0)
    """At most so many train cases: the first of the seeded order, so that a larger limit contains a smaller."""
    dev_limit: int | None = Field(None, ge=0)
    """At most so many dev cases."""
    val_limit: int | None = Field(None, ge=0)
    """At most so many val cases."""
    test_limit: int | None = Field(None, ge=0)
    """At most so many test cases."""
    split_seed: int = 0
    """Of the order of the cases and the splits that the source lacks; of phantoms, what they look like."""
    skip_bad: bool = False
    """Leave bad files out, counted and named."""
    classes: Words = ()
    """Labels that are the lesion, "1,2", "#ff0000" or "all", for masks that are label maps."""
    ignore: Words = ()
    """Labels that count nowhere, neither in the loss nor in scores."""
    empty_masks: Literal["refuse", "keep"] = "refuse"
    """Whether a mask may be empty: an image without a lesion."""
    exif: Literal["apply", "ignore"] = "apply"
    """Turn images as their EXIF orientation says, or take the pixels as they are stored."""
    window: str | None = None
    """What becomes black and white: values, "-160:240", or percentiles, "1%:99%"; default: 8 bits as they are."""
    group_by: str | None = None
    """Cases that belong together, of one patient or video: a pattern in the name, or a CSV of name and group."""
    drop_duplicates: bool = False
    """Leave training images out that are near-duplicates of val or test."""

    @property
    def limit_of(self) -> dict[SplitName, int | None]:
        """How many cases to take from each split; None for all."""
        return {"train": self.train_limit, "dev": self.dev_limit, "val": self.val_limit, "test": self.test_limit}


@dataclass(frozen=True)
class Source:
    """What a folder or a data set of the hub holds, before any pixel is read."""

    name: str
    names: Sequence[str]  # of all cases
    given: Mapping[SplitName, Sequence[str]]  # the splits that are the source's own
    load: Callable[[str], Case]
    findings: Sequence[Finding] = ()  # errors are of cases that cannot even be opened
    unlisted: Sequence[str] = ()  # cases of no split
    licence: str = "not stated: the terms of whoever the images are from"
    citation: str = "not stated: cite whoever the images are from"
