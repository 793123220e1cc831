"""Data sets put together anew: folds of one that is small, training cases of two, all cases of one."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

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

    Its own splits are pooled first. The parts depend on names and pixels, and on the seed of the order in which they
    are dealt. Near-duplicates and cases of one group stay in one part. Dev is a tenth of what is left.
    `DataError` where there are fewer cases, or groups of near-duplicates, than folds.
    """
    if count < 2:
        raise ConfigError(f"folds must be 2 or more, is {count}")
    cases = everything(dataset)
    cases = cases.named(seeded_order(cases.names, seed))
    parts: list[list[str]] = [[] for _ in range(count)]
    for group in _groups(cases, dataset.group_of):
        min(parts, key=len).extend(group)
    if not all(parts):
        raise DataError(f"{dataset.name}: {len(cases)} cases are too few for {count} folds")
    folds = []
    for number, part in enumerate(parts, 1):
        splits = make_splits(cases.names, seed, {"val": part}, dataset.group_of)
        parts_of: Any = {split: cases.named(names) for split, names in splits.items()}
        folds.append(replace(dataset, name=f"{dataset.name}, fold {number} of {count}", **parts_of))
    return folds


def _groups(cases: Cases, group_of: Mapping[str, str]) -> list[list[str]]:
    """The names, near-duplicates and cases of one group together, in the order of the first of each."""
    looks = np.array([thumbnail(case.image) for case in cases])
    first_of = dict[str, int]()
    pairs = [(first_of.setdefault(group_of.get(name, name), place), place) for place, name in enumerate(cases.names)]
    pairs += [(i, j) for i, j, _ in near_duplicates(looks)]
    links = coo_array((np.ones(len(pairs)), np.transpose(pairs)), (len(cases), len(cases)))
    together: dict[int, list[str]] = defaultdict(list)
    for name, group in zip(cases.names, connected_components(links, directed=False)[1], strict=True):
        together[group].append(name)
    return list(together.values())


def with_training_of(dataset: Dataset, other: Dataset) -> Dataset:
    """The data set with the train and dev cases of another added to its own; `DataError` where two have one name."""
    name = f"{dataset.name}, with {len(other.train)} training cases of {other.name}"
    train, dev = pooled(dataset.train, other.train), pooled(dataset.dev, other.dev)
    return replace(dataset, name=name, train=train, dev=dev, left_out=(*dataset.left_out, *other.left_out))
