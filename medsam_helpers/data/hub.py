"""Data sets of the Hugging Face hub as a data source, through `datasets`; a local copy of one loads the same way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

from medsam_helpers.data.case import Case, Dataset, SplitName
from medsam_helpers.data.reading import make_case, read_image, read_mask
from medsam_helpers.data.splits import build_dataset, make_splits
from medsam_helpers.errors import DataError

if TYPE_CHECKING:
    import datasets

PROBE_SECONDS = 5.0
_MASK_COLUMNS = ("annotation", "label", "mask")
_VAL_SPLITS = ("validation", "val", "test")


@dataclass(frozen=True)
class HubSource:
    """A data set of the hub and its terms."""

    repo: str
    licence: str
    citation: str


HUB_SOURCES = {
    "kvasir": HubSource(
        repo="kowndinya23/Kvasir-SEG",
        licence=(
            "CC BY 4.0, as the segmented polyps of HyperKvasir (Borgli et al., Scientific Data 7:283, 2020, "
            "doi:10.1038/s41597-020-00622-y); Kvasir-SEG's own page says research and education"
        ),
        citation=(
            "Jha et al., Kvasir-SEG: A Segmented Polyp Dataset, MMM 2020, doi:10.1007/978-3-030-37734-2_37, "
            "arXiv:1911.07069"
        ),
    ),
    "breast": HubSource(
        repo="nielsr/breast-cancer",
        licence="not stated by the repository; its images look like BUSI's, whose authors ask to be cited",
        citation=(
            "Al-Dhabyani et al., Dataset of breast ultrasound images (BUSI), Data in Brief 28:104863, 2020, "
            "doi:10.1016/j.dib.2019.104863"
        ),
    ),
}


def hub_dataset(
    name: str,
    *,
    train_limit: int | None = None,
    dev_limit: int | None = None,
    val_limit: int | None = None,
    split_seed: int = 0,
    skip_bad: bool = False,
) -> Dataset:
    """The cases of a data set of the hub: an `image` column and one of `annotation`, `label` or `mask`.

    `validation` (or `val`, or `test`) is the val split; where there is only `train`, a fixed seeded fifth is. A `name`
    column names the cases, otherwise their row does. Images stay encoded until a case is asked for.

    Args:
        name: `kvasir`, `breast`, a repository of the hub, or the folder of a local copy of one.
        train_limit: take the first N of the seeded order; a larger limit contains the smaller. None for all.
        dev_limit: the same for dev, a seeded tenth of train drawn before any limit is applied.
        val_limit: the same for val.
        split_seed: decides the order and the splits that the source lacks.
        skip_bad: go on without the bad cases and name them in `left_out`.
    Raises:
        DataError: the hub does not answer and the data set is not cached; no such repository; columns of another
            schema; or bad cases, with the list of them.
        ConfigError: a limit is no whole number from 0 up.
    """
    unknown = HubSource(name, "not stated here: see the repository's card", "see the repository's card")
    source = HUB_SOURCES.get(name, unknown)
    parts = _load_parts(source.repo)
    mask_column = _mask_column(parts, source.repo)
    official = {"train": "train", "val": next((part for part in _VAL_SPLITS if part in parts), None)}
    if "train" not in parts:
        raise DataError(f"{source.repo}: has no split train, only {', '.join(parts)}")

    loaders: dict[str, partial[Case]] = {}
    given: dict[SplitName, list[str]] = {}
    for split, part in official.items():
        if part:
            given[split] = _case_names(parts[part], part, source.repo)
            repeated = loaders.keys() & given[split]
            if repeated:
                raise DataError(f"{source.repo}: {sorted(repeated)[0]} is the name of a case in two splits")
            for row, case in enumerate(given[split]):
                loaders[case] = partial(_load_row, case, parts[part], row, mask_column)
    unused = [
        f"split {part}: {len(rows)} cases, not used" for part, rows in parts.items() if part not in official.values()
    ]
    return build_dataset(
        name if name in HUB_SOURCES else Path(name).name,
        make_splits(list(loaders), split_seed, given if "val" in given else None),
        partial(_load_named, loaders),
        limits={"train": train_limit, "dev": dev_limit, "val": val_limit},
        skip_bad=skip_bad,
        licence=source.licence,
        citation=source.citation,
        left_out=unused,
    )


def _load_named(loaders: dict[str, partial[Case]], name: str) -> Case:
    return loaders[name]()


def _load_row(name: str, rows: datasets.Dataset, row: int, mask_column: str) -> Case:
    record = rows[row]
    image, mask = (record[column]["bytes"] or record[column]["path"] for column in ("image", mask_column))
    try:
        pair = read_image(image), read_mask(mask)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    return make_case(name, *pair)


def _case_names(rows: datasets.Dataset, part: str, repo: str) -> list[str]:
    names = list(rows["name"]) if "name" in rows.features else [f"{part}-{row:04d}" for row in range(len(rows))]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{repo}: {twice!r} is the name of two cases of split {part}")
    return names


def _mask_column(parts: datasets.DatasetDict, repo: str) -> str:
    import datasets

    for part, rows in parts.items():
        pictures = {column for column, kind in rows.features.items() if isinstance(kind, datasets.Image)}
        masks = [column for column in _MASK_COLUMNS if column in pictures]
        if "image" not in pictures or len(masks) != 1:
            found = ", ".join(f"{column} ({type(kind).__name__})" for column, kind in rows.features.items())
            raise DataError(
                f"{repo}: split {part} has the columns {found}; needed are an Image column `image` and exactly one of "
                f"{', '.join(_MASK_COLUMNS)}"
            )
        mask_column = masks[0]
    for part, rows in parts.items():
        # Encoded bytes go through the same reader as files do: one rule for modes, EXIF and damage.
        undecoded = datasets.Image(decode=False)
        parts[part] = rows.cast_column("image", undecoded).cast_column(mask_column, undecoded)
    return mask_column


def _load_parts(repo: str) -> datasets.DatasetDict:
    """The splits of a repository or a local copy of one, from the cache if the hub does not answer."""
    import datasets
    from huggingface_hub.errors import HfHubHTTPError

    local = Path(repo).expanduser()
    answers = local.is_dir() or hub_answers()
    try:
        with _offline(not answers):
            return datasets.load_dataset(str(local) if local.is_dir() else repo)
    except (datasets.exceptions.DatasetsError, HfHubHTTPError, OSError, ValueError, RuntimeError) as error:
        if answers:
            raise DataError(f"{repo}: cannot be loaded: {error}") from error
        raise DataError(
            f"{repo}: the hub ({_endpoint()}) does not answer, or HF_HUB_OFFLINE is set, and the data set "
            "is not in the cache: connect to the network, or use a folder with images/ and masks/ (--data PATH)"
        ) from error


def _endpoint() -> str:
    import datasets

    return datasets.config.HF_ENDPOINT


def hub_answers(url: str | None = None, timeout_s: float = PROBE_SECONDS) -> bool:
    """Whether the hub answers within seconds; its own client retries for half a minute before it gives up."""
    import datasets

    if datasets.config.HF_HUB_OFFLINE:
        return False
    try:
        requests.head(url or _endpoint(), timeout=timeout_s)
    except requests.RequestException:
        return False
    return True


@contextmanager
def _offline(wanted: bool) -> Iterator[None]:
    """Makes `datasets` look into its cache only; it has a setting for that but no argument."""
    import datasets

    before: Any = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = before or wanted
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before
