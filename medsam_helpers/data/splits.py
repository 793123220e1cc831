"""Which case goes where: fixed seeded splits that keep groups together."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from medsam_helpers.data.case import SPLITS, SplitName
from medsam_helpers.errors import DataError, some


def seeded_order(names: Sequence[str], seed: int, group_of: Mapping[str, str] | None = None) -> list[str]:
    """The names in an order that depends on each name and the seed alone; one case more leaves the others in place.

    Those of a group stand together, where the group's own name puts it.

    >>> seeded_order(["a", "b", "c", "d"], seed=0)
    ['b', 'a', 'c', 'd']
    """

    def place(name: str) -> bytes:
        return hashlib.sha256(f"{seed} {name}".encode()).digest()

    group_of = group_of or {}
    return sorted(names, key=lambda name: (place(group_of.get(name, name)), place(name)))


def make_splits(
    names: Sequence[str],
    seed: int,
    given: Mapping[SplitName, Sequence[str]] | None = None,
    group_of: Mapping[str, str] | None = None,
) -> dict[SplitName, list[str]]:
    """Train, dev, val and test, each in seeded order.

    Where only one of train and val is given, the other gets the remaining cases; where neither is, val is a fifth. Dev
    is a tenth of train (at least one case where train has two) unless given. Test is empty unless given.

    Args:
        seed: decides the order, and with it the splits that are not given.
        given: the official splits of the source, if any.
        group_of: the group of each case; a group stays in one split. Default: each case is one.
    Raises:
        DataError: a case, or a group, is given to two splits.

    >>> {split: len(cases) for split, cases in make_splits([f"case-{i}" for i in range(130)], seed=0).items()}
    {'train': 94, 'dev': 10, 'val': 26, 'test': 0}
    """
    splits: dict[SplitName, Sequence[str]] = {split: list(members) for split, members in (given or {}).items()}
    group_of = group_of or {}
    owner: dict[str, str] = {}
    clashes = [
        f"{name}: in {owner[group]} and in {split}" + f" (group {group})" * (group != name)
        for split, members in splits.items()
        for name in members
        if owner.setdefault(group := group_of.get(name, name), split) != split
    ]
    if clashes:
        raise DataError(listing("cases that are in two splits, which would leak:", clashes))
    listed = {name for members in splits.values() for name in members}
    rest = seeded_order([name for name in names if name not in listed], seed, group_of)
    if "val" not in splits:
        splits["val"], rest = (rest, []) if "train" in splits else _hold_out(rest, 5, group_of)
    splits.setdefault("train", rest)
    if "dev" not in splits:
        splits["dev"], splits["train"] = _hold_out(seeded_order(splits["train"], seed, group_of), 10, group_of)
    return {split: seeded_order(splits.get(split, ()), seed) for split in SPLITS}


def groups_of(names: Sequence[str], group_by: str | None) -> dict[str, str]:
    """The group of each case: what the pattern finds in its name (its first bracket), or the CSV's second column.

    `DataError` where a case has none, or the file or pattern cannot be read.

    >>> groups_of(["p1_a", "p1_b", "p2_a"], r"p[0-9]+")
    {'p1_a': 'p1', 'p1_b': 'p1', 'p2_a': 'p2'}
    """
    own = {name: name.partition("::")[2] or name for name in names}  # of several data sets each has groups of its own
    if not group_by:
        return {}
    if Path(group_by).expanduser().is_file():
        import pandas as pd

        try:
            table = pd.read_csv(Path(group_by).expanduser(), dtype=str, keep_default_na=False)
        except (OSError, ValueError) as error:  # pandas' own errors, and text that is no UTF-8, are ValueErrors
            raise DataError(f"{group_by}: not a CSV file of name and group ({error})") from error
        named = dict(zip(table.iloc[:, 0], table.iloc[:, -1], strict=True))
        found = {name: named.get(own[name], "") for name in names}
    else:
        try:
            matches = {name: re.search(group_by, own[name]) for name in names}
        except re.error as error:
            raise DataError(f"group_by {group_by!r}: no such file, and no pattern ({error})") from None
        found = {name: match[match.re.groups > 0] if match else "" for name, match in matches.items()}
    if without := [name for name, group in found.items() if not group]:
        told = f"group_by {group_by!r} gives no group to {len(without)} of {len(found)} cases ({some(without)})"
        raise DataError(f"{told}: a pattern must be found in each name, a CSV file must exist and list each")
    return {name: name.removesuffix(own[name]) + group for name, group in found.items()}


def listing(head: str, lines: Sequence[str]) -> str:
    """The head with the first ten lines under it and a count of the others."""
    more = [f"... and {len(lines) - 10} more"] if len(lines) > 10 else []
    return "\n  ".join([head, *lines[:10], *more])


def _hold_out(names: list[str], share: int, group_of: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """The first `1 / share` of the names (at least one of two) up to the end of a group, and the rest."""
    count = max(1, len(names) // share) if len(names) > 1 else 0
    while 0 < count < len(names) and group_of and group_of[names[count - 1]] == group_of[names[count]]:
        count += 1
    return names[:count], names[count:]
