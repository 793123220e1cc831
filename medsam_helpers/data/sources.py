"""Where cases come from: phantoms, folders, the hub. `load_data` knows them all by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from medsam_helpers.errors import ConfigError

if TYPE_CHECKING:
    from medsam_helpers.data.case import Dataset

SOURCES = ("phantom", "phantom-ultrasound", "kvasir", "breast")


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
    from medsam_helpers.data.splits import Selection

    selection = Selection({"train": train_limit, "dev": dev_limit, "val": val_limit}, split_seed, skip_bad)
    if source in ("phantom", "phantom-ultrasound"):
        from medsam_helpers.phantoms.dataset import phantom_dataset

        wanted = zip(selection.limits.values(), (80, 16, 64), strict=True)
        train, dev, val = (most if limit is None else min(limit, most) for limit, most in wanted)
        return phantom_dataset("endoscopy" if source == "phantom" else "ultrasound", train, dev, val, split_seed)
    path = Path(source).expanduser()
    parquet = not (path / "images").is_dir() and any((*path.glob("*.parquet"), *path.glob("data/*.parquet")))
    if source in SOURCES or parquet:
        from medsam_helpers.data.hub import hub_dataset

        return hub_dataset(str(source), selection)
    if not path.is_dir():
        raise ConfigError(f"data source {str(source)!r} is unknown: use {', '.join(SOURCES)}, or a folder that exists")
    from medsam_helpers.data.folder import folder_dataset

    return folder_dataset(path, selection)
