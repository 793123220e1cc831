"""Which case goes where: fixed seeded splits, limits, and the check that the cases in use can be used."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from tqdm.auto import tqdm

from medsam_helpers.data.case import SPLITS, Case, Cases, Dataset, SplitName
from medsam_helpers.errors import ConfigError, DataError

_SHOWN = 10


def seeded_order(names: Sequence[str], seed: int) -> list[str]:
    """The names in an order that depends on each name and the seed alone.

    Sorting by a hash, unlike a shuffle, gives the same order under every version of numpy, whatever order the names
    came in, and one case more or less leaves the order of the others as it is.

    >>> seeded_order(["a", "b", "c", "d"], seed=0)
    ['b', 'a', 'c', 'd']
    >>> seeded_order(["d", "c", "b"], seed=0)
    ['b', 'c', 'd']
    """
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())


def make_splits(
    names: Sequence[str], seed: int, given: Mapping[SplitName, Sequence[str]] | None = None
) -> dict[SplitName, list[str]]:
    """Train, dev and val, each in seeded order.

    Splits that are `given` are kept. Where only one of train and val is, the other gets the remaining cases; where
    neither is, val is a fifth. Dev is a tenth of train (at least one case where train has two) unless given.

    Args:
        names: all cases.
        seed: decides the order, and with it the splits that are not given.
        given: the official splits of the source, if any.
    Raises:
        DataError: a case is given to two splits.

    >>> {split: len(cases) for split, cases in make_splits([f"case-{i}" for i in range(130)], seed=0).items()}
    {'train': 94, 'dev': 10, 'val': 26}
    """
    given = dict(given or {})
    owner: dict[str, str] = {}
    clashes = [
        f"{name}: in {owner[name]} and in {split}"
        for split, members in given.items()
        for name in members
        if owner.setdefault(name, split) != split
    ]
    if clashes:
        raise DataError(listing("cases that are in two splits, which would leak:", clashes))
    rest = seeded_order([name for name in names if name not in owner], seed)
    if "val" not in given and "train" in given:
        given["val"] = rest
    elif "val" not in given:
        given["val"], rest = _hold_out(rest, 5)
    train = seeded_order(given.get("train", rest), seed)
    if "dev" not in given:
        given["dev"], train = _hold_out(train, 10)
    return {"train": train, "dev": seeded_order(given["dev"], seed), "val": seeded_order(given["val"], seed)}


def build_dataset(
    name: str,
    splits: Mapping[SplitName, Sequence[str]],
    load: Callable[[str], Case],
    *,
    limits: Mapping[SplitName, int | None],
    skip_bad: bool,
    licence: str,
    citation: str,
    bad: Mapping[str, str] | None = None,
    left_out: Sequence[str] = (),
) -> Dataset:
    """The data set of the first cases of each split, every one of them decoded once to see that it can be used.

    Args:
        name: of the data set.
        splits: case names in the order that limits count in.
        load: reads one case, or raises `DataError`.
        limits: how many good cases to take from each split; None for all.
        skip_bad: go on without the bad cases; they are named in `Dataset.left_out`.
        licence: terms of the data.
        citation: whom to cite.
        bad: cases known to be bad before their pixels are read, each with the reason.
        left_out: what the source itself left out, each with the reason.
    Raises:
        DataError: a case in use is bad and `skip_bad` is off, or no case is left.
        ConfigError: a limit is no whole number from 0 up.
    """
    bad = dict(bad or {})
    kept: dict[SplitName, list[str]] = {}
    for split in SPLITS:
        kept[split], found = _first_good(splits[split], check_limit(split, limits.get(split)), load, bad, skip_bad)
        bad |= found
    if bad and not skip_bad:
        hint = "mend them, or leave them out with skip_bad (--skip-bad)"
        raise DataError(listing(f"{name}: {_count(bad, 'bad case')}; {hint}:", list(bad.values())))
    if not any(splits.values()) or (bad and not any(kept.values())):
        raise DataError(listing(f"{name}: no usable case is left", list(bad.values())))
    cases = {split: Cases(names, load) for split, names in kept.items()}
    return Dataset(name, **cases, licence=licence, citation=citation, left_out=(*left_out, *bad.values()))


def check_limit(split: str, limit: int | None) -> int | None:
    """The limit, if it is None or a whole number from 0 up.

    Raises:
        ConfigError: it is neither.
    """
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 0):
        raise ConfigError(f"{split}_limit is {limit!r}: use a whole number from 0 up, or None for all cases")
    return limit


def listing(head: str, lines: Sequence[str]) -> str:
    """The head with the first ten lines under it and a count of the others."""
    more = [f"... and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return "\n  ".join([head, *lines[:_SHOWN], *more])


def _hold_out(names: list[str], share: int) -> tuple[list[str], list[str]]:
    """The first `1 / share` of the names (at least one of two), and the rest."""
    count = max(1, len(names) // share) if len(names) > 1 else 0
    return names[:count], names[count:]


def _first_good(
    names: Sequence[str], limit: int | None, load: Callable[[str], Case], bad: Mapping[str, str], skip_bad: bool
) -> tuple[list[str], dict[str, str]]:
    """The first `limit` good names, and the bad ones met on the way; without `skip_bad` the first `limit` it is."""
    wanted = len(names) if limit is None else min(limit, len(names))
    queue, kept, found = list(names), [], {}
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # Pillow decodes outside the interpreter's lock
        while queue and len(kept) < wanted:
            batch, queue = queue[: wanted - len(kept)], queue[wanted - len(kept) :]
            reasons = pool.map(lambda name: bad.get(name) or _why_bad(name, load), batch)
            for name, reason in zip(batch, tqdm(reasons, "check cases", len(batch), delay=2), strict=True):
                if reason:
                    found[name] = reason
                else:
                    kept.append(name)
            if not skip_bad:
                break
    return kept, found


def _why_bad(name: str, load: Callable[[str], Case]) -> str:
    try:
        load(name)
    except DataError as error:
        return str(error)
    return ""


def _count(items: Mapping[str, str], noun: str) -> str:
    return f"{len(items)} {noun}" + ("s" if len(items) != 1 else "")
