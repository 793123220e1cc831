"""Which case goes where: fixed seeded splits, limits, and the check that the cases in use can be used."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tqdm.contrib.concurrent import thread_map

from medsam_helpers.data.case import SPLITS, Case, Cases, Dataset, SplitName
from medsam_helpers.errors import ConfigError, DataError


@dataclass(frozen=True)
class Selection:
    """What to take from a source, as `load_data` explains; `ConfigError` if a limit is no whole number from 0 up."""

    limits: Mapping[SplitName, int | None]  # for each split how many cases to take; None for all
    split_seed: int
    skip_bad: bool

    def __post_init__(self) -> None:
        for split, limit in self.limits.items():
            if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 0):
                raise ConfigError(f"{split}_limit is {limit!r}: use a whole number from 0 up, or None for all cases")


def seeded_order(names: Sequence[str], seed: int) -> list[str]:
    """The names in an order that depends on each name and the seed alone; one case more leaves the others in place.

    >>> seeded_order(["a", "b", "c", "d"], seed=0)
    ['b', 'a', 'c', 'd']
    """
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())


def make_splits(
    names: Sequence[str], seed: int, given: Mapping[SplitName, Sequence[str]] | None = None
) -> dict[SplitName, list[str]]:
    """Train, dev and val, each in seeded order.

    Where only one of train and val is given, the other gets the remaining cases; where neither is, val is a fifth. Dev
    is a tenth of train (at least one case where train has two) unless given.

    Args:
        names: all cases.
        seed: decides the order, and with it the splits that are not given.
        given: the official splits of the source, if any.
    Raises:
        DataError: a case is given to two splits.

    >>> {split: len(cases) for split, cases in make_splits([f"case-{i}" for i in range(130)], seed=0).items()}
    {'train': 94, 'dev': 10, 'val': 26}
    """
    splits: dict[SplitName, Sequence[str]] = dict(given or {})
    owner: dict[str, str] = {}
    clashes = [
        f"{name}: in {owner[name]} and in {split}"
        for split, members in splits.items()
        for name in members
        if owner.setdefault(name, split) != split
    ]
    if clashes:
        raise DataError(listing("cases that are in two splits, which would leak:", clashes))
    rest = seeded_order([name for name in names if name not in owner], seed)
    if "val" not in splits:
        splits["val"], rest = (rest, []) if "train" in splits else _hold_out(rest, 5)
    splits.setdefault("train", rest)
    if "dev" not in splits:
        splits["dev"], splits["train"] = _hold_out(seeded_order(splits["train"], seed), 10)
    return {split: seeded_order(splits[split], seed) for split in SPLITS}


def build_dataset(
    name: str,
    splits: Mapping[SplitName, Sequence[str]],
    load: Callable[[str], Case],
    selection: Selection,
    *,
    licence: str,
    citation: str,
    bad: Mapping[str, str] | None = None,
    left_out: Sequence[str] = (),
) -> Dataset:
    """The data set of the first cases of each split, every one of them decoded once to see that it can be used.

    Args:
        name: of the data set, as are `licence` and `citation`.
        splits: case names in the order that limits count in.
        load: reads one case, or raises `DataError`.
        selection: how many good cases of each split, and whether to go on without the bad ones.
        bad, left_out: cases that are bad before pixels are read, and what the source left out, with the reasons.
    Raises:
        DataError: a case in use is bad and may not be skipped, or no case is left.
    """
    bad = dict(bad or {})
    kept: dict[SplitName, list[str]] = {}
    for split in SPLITS:
        kept[split], found = _first_good(splits[split], selection.limits[split], load, bad, selection.skip_bad)
        bad |= found
    reasons = list(bad.values())
    if bad and not selection.skip_bad:
        count = f"{len(bad)} bad case{'s' * (len(bad) > 1)}"
        raise DataError(listing(f"{name}: {count}; mend them, or leave them out with skip_bad (--skip-bad):", reasons))
    if not any(splits.values()) or (bad and not any(kept.values())):
        raise DataError(listing(f"{name}: no usable case is left", reasons))
    train, dev, val = (Cases(kept[split], load) for split in SPLITS)
    return Dataset(name, train, dev, val, licence, citation, (*left_out, *reasons))


def listing(head: str, lines: Sequence[str]) -> str:
    """The head with the first ten lines under it and a count of the others."""
    more = [f"... and {len(lines) - 10} more"] if len(lines) > 10 else []
    return "\n  ".join([head, *lines[:10], *more])


def _hold_out(names: list[str], share: int) -> tuple[list[str], list[str]]:
    """The first `1 / share` of the names (at least one of two), and the rest."""
    count = max(1, len(names) // share) if len(names) > 1 else 0
    return names[:count], names[count:]


def _first_good(
    names: Sequence[str], limit: int | None, load: Callable[[str], Case], bad: Mapping[str, str], skip_bad: bool
) -> tuple[list[str], dict[str, str]]:
    """The first `limit` good names, and the bad ones met on the way; without `skip_bad` only `limit` are looked at."""

    def why_bad(name: str) -> str:
        try:
            if name not in bad:
                load(name)
        except DataError as error:
            return str(error)
        return bad.get(name, "")

    wanted = len(names) if limit is None else min(limit, len(names))
    reason_of: dict[str, str] = {}  # empty for a good case
    while batch := names[len(reason_of) :][: wanted - list(reason_of.values()).count("")]:
        reasons = thread_map(why_bad, batch, desc="check cases", delay=2)  # Pillow decodes outside Python's global lock
        reason_of |= dict(zip(batch, reasons, strict=True))
        if not skip_bad:
            break
    kept = [name for name, reason in reason_of.items() if not reason]
    return kept, {name: reason for name, reason in reason_of.items() if reason}
