"""Data sets put together anew: folds of one that is small, training cases of two, all cases of one."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from medsam_helpers.data.case import Cases, Dataset
from medsam_helpers.data.duplicates import near_duplicates, thumbnail
from medsam_helpers.data.splits import make_splits, seeded_order
from medsam_helpers.errors import ConfigError, DataError


def pooled(*parts: Cases) -> Cases:
    """The cases of all parts, one after the other; `DataError` where two have one name."""
    counts = Counter(name for part in parts for name in part.names)
    if twice := sorted(name for name, count in counts.items() if count > 1):
        raise DataError(f"{', '.join(twice[:3])}: in more than one of the data sets; rename the files of one")
    part_of = {name: part for part in parts for name in part.names}
    return Cases(list(part_of), lambda name: part_of[name].load(name))


def everything(dataset: Dataset) -> Cases:
    """All cases of the three splits: for a model that was trained elsewhere."""
    return pooled(*dataset.splits.values())


def make_folds(dataset: Dataset, count: int, seed: int = 0) -> list[Dataset]:
    """The data set `count` times over, each time with another part as val: every case is scored once.

    The parts depend on names and pixels alone. Near-duplicates stay in one part. Dev is a tenth of what is left.

    Args:
        dataset: its own splits are pooled first.
        count: how many folds.
        seed: of the order in which the cases are dealt.
    Raises:
        ConfigError: fewer than two folds.
        DataError: fewer cases, or groups of near-duplicates, than folds.
    """
    if count < 2:
        raise ConfigError(f"folds must be 2 or more, is {count}")
    cases = everything(dataset)
    cases = cases.named(seeded_order(cases.names, seed))
    parts: list[list[str]] = [[] for _ in range(count)]
    for group in _groups(cases):
        min(parts, key=len).extend(group)
    if not all(parts):
        raise DataError(f"{dataset.name}: {len(cases)} cases are too few for {count} folds")
    folds = []
    for number, part in enumerate(parts, 1):
        train, dev, val = map(cases.named, make_splits(cases.names, seed, {"val": part}).values())
        name = f"{dataset.name}, fold {number} of {count}"
        folds.append(replace(dataset, name=name, train=train, dev=dev, val=val))
    return folds


def _groups(cases: Cases) -> list[list[str]]:
    """The names, near-duplicates together, in the order of the first of each group."""
    group_of = {name: [name] for name in cases.names}
    for first, second, _ in near_duplicates(np.array([thumbnail(case.image) for case in cases])):
        one, other = group_of[cases.names[first]], group_of[cases.names[second]]
        if one is not other:
            one += other
            group_of |= dict.fromkeys(other, one)
    return list({id(group): group for group in group_of.values()}.values())


def with_training_of(dataset: Dataset, other: Dataset) -> Dataset:
    """The data set with the train and dev cases of another added to its own; `DataError` where two have one name."""
    name = f"{dataset.name}, with {len(other.train)} training cases of {other.name}"
    train, dev = pooled(dataset.train, other.train), pooled(dataset.dev, other.dev)
    return replace(dataset, name=name, train=train, dev=dev, left_out=(*dataset.left_out, *other.left_out))
