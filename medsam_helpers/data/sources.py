"""Where cases come from: phantoms, folders, the hub. `load_data` knows them all by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from medsam_helpers.data.case import Dataset
from medsam_helpers.data.folder import folder_dataset
from medsam_helpers.data.splits import check_limit
from medsam_helpers.errors import ConfigError

SOURCES = ("phantom", "phantom-ultrasound", "kvasir", "breast")
_PHANTOM_KINDS = {"phantom": "endoscopy", "phantom-ultrasound": "ultrasound"}


def load_data(
    source: str | Path,
    *,
    train_limit: int | None = None,
    dev_limit: int | None = None,
    val_limit: int | None = None,
    split_seed: int = 0,
    skip_bad: bool = False,
) -> Dataset:
    """The data set of a name or a folder.

    Args:
        source: `phantom` or `phantom-ultrasound` (80 train, 16 dev, 64 val), `kvasir` or `breast` (from the hub), or
            a folder: one with `images/` and `masks/`, or the local copy of a hub data set (parquet files). A folder
            that has the name of a source is written `./kvasir`.
        train_limit: take the first N of the split; a larger limit contains the smaller. None for all there are.
        dev_limit: the same for dev.
        val_limit: the same for val.
        split_seed: decides the order of the cases, and the splits that the source lacks; for phantoms, their looks.
        skip_bad: go on without the bad cases and name them in `left_out`.
    Raises:
        ConfigError: no source of that name and no such folder, or a limit is no whole number from 0 up.
        DataError: the source cannot be had, or holds bad cases.
    """
    limits = {"train": train_limit, "dev": dev_limit, "val": val_limit}
    for split, limit in limits.items():
        check_limit(split, limit)
    if source in _PHANTOM_KINDS:
        from medsam_helpers.phantoms.dataset import phantom_dataset

        dataset = phantom_dataset(kind=_PHANTOM_KINDS[source], n_train=80, n_dev=16, n_val=64, seed=split_seed)
        return replace(dataset, **{split: getattr(dataset, split)[:limit] for split, limit in limits.items()})

    path = Path(source).expanduser()
    given = {f"{split}_limit": limit for split, limit in limits.items()} | {
        "split_seed": split_seed,
        "skip_bad": skip_bad,
    }
    local_copy = (
        path.is_dir()
        and not (path / "images").is_dir()
        and any((*path.glob("*.parquet"), *path.glob("data/*.parquet")))
    )
    if source in SOURCES or local_copy:
        from medsam_helpers.data.hub import hub_dataset

        return hub_dataset(str(source), **given)
    if not path.is_dir():
        raise ConfigError(f"data source {str(source)!r} is unknown: use {', '.join(SOURCES)}, or a folder that exists")
    return folder_dataset(path, **given)
