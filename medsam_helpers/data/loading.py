"""`load_data`: phantoms, folders and the hub by name. It loads what takes long to load only when it is called."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from medsam_helpers.data.sources import SOURCES, Selection, Source
from medsam_helpers.errors import ConfigError

if TYPE_CHECKING:
    from medsam_helpers.data.case import Dataset

# What lies in a folder that the library `datasets` reads.
_TABLES = ("metadata.csv", "metadata.jsonl", "train/metadata.csv", "train/metadata.jsonl")
_OF_DATASETS = ("*.parquet", "data/*.parquet", "dataset_dict.json", "state.json", *_TABLES)


def load_data(source: str | Path, **options: Any) -> "Dataset":
    """The data set of a name or a folder.

    Args:
        source: `phantom` or `phantom-ultrasound` (80 train, 16 dev, 64 val), `kvasir` or `breast` (from the hub), or
            a folder: of images and masks, or the local copy of a hub data set (parquet files, an image folder with
            metadata, or what `save_to_disk` wrote). A folder that has the name of a source is written `./kvasir`.
            Several, "busi,kvasir", are one data set with cases "busi::benign_1".
        options: the settings of `Selection`, `train_limit=40, classes=("1", "2")` say.
    Raises:
        ConfigError: no source of that name and no such folder, or a setting that cannot be.
        DataError: the source cannot be had, or holds bad cases.

    >>> print(load_data("phantom", train_limit=4, dev_limit=1, val_limit=2))
    endoscopy-phantoms: 4 train, 1 dev, 2 val
    """
    selection = Selection(**options)
    if source in ("phantom", "phantom-ultrasound"):
        from medsam_helpers.phantoms.dataset import phantom_dataset

        wanted = zip(selection.limit_of.values(), (80, 16, 64), strict=False)
        train, dev, val = (most if limit is None else min(limit, most) for limit, most in wanted)
        kind = "endoscopy" if source == "phantom" else "ultrasound"
        return phantom_dataset(kind, train, dev, val, selection.split_seed)
    from medsam_helpers.data.building import build_dataset

    return build_dataset(open_source(source, selection), selection)


def open_source(source: str | Path, selection: Selection) -> Source:
    """What lies in a folder or a data set of the hub, before any pixel is read; errors as for `load_data`."""
    path, parts = Path(source).expanduser(), places_of(source)
    if len(parts) > 1:
        from medsam_helpers.data.building import join

        return join([open_source(part, selection) for part in parts], selection)
    if source in ("phantom", "phantom-ultrasound"):
        raise ConfigError(f"{source} is drawn, which cannot be joined with others: `save_folder` makes it a folder")
    has_images = (path / "images").is_dir() or (path / "train" / "images").is_dir()
    is_of_datasets = not has_images and any(any(path.glob(mark)) for mark in _OF_DATASETS)
    if source in SOURCES or is_of_datasets:
        from medsam_helpers.data.hub import hub_source

        return hub_source(str(source), selection)
    if not path.is_dir():
        raise ConfigError(f"data source {str(source)!r} is unknown: use {', '.join(SOURCES)}, or a folder that exists")
    from medsam_helpers.data.folder import folder_source

    return folder_source(path, selection)


def places_of(source: str | Path) -> list[str]:
    """The sources that "a,b" names, or the one of that name."""
    return [str(source)] if Path(source).expanduser().exists() else [part.strip() for part in str(source).split(",")]
