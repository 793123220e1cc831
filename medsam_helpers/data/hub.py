"""Data sets of the Hugging Face hub as a data source, through `datasets`; a local copy of one loads the same way."""

import tomllib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError

from medsam_helpers.data.case import Case, Finding, SplitName
from medsam_helpers.data.reading import read_case
from medsam_helpers.data.sources import Selection, Source
from medsam_helpers.errors import DataError

if TYPE_CHECKING:
    import datasets

PROBE_SECONDS = 5.0
_MASK_COLUMNS = ("annotation", "label", "mask")
_Place = tuple["datasets.Dataset", int, str]  # rows, the row, the column of masks


HUB_SOURCES = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
"""Data sets of the hub by their names here: `repo`, `licence` and `citation` of each."""


def hub_source(name: str, selection: Selection) -> Source:
    """The cases of a data set of the hub: an `image` column and one of `annotation`, `label` or `mask`.

    `validation` (or `val`, or `test` where there is neither) is the val split, `test` beside it the test split; the
    rest is drawn as `make_splits` says. A `name` column names the cases, otherwise their row does.

    `name` is `kvasir`, `breast`, a repository of the hub, or the folder of a local copy of one. `DataError`: it is
    neither on the hub nor cached, or has other columns.
    """
    card = "see the repository's card"
    known = HUB_SOURCES.get(name, {"repo": name, "licence": f"not stated here: {card}", "citation": card})
    repo = known["repo"]
    parts = _load_parts(repo)
    if "train" not in parts:
        raise DataError(f"{repo}: has no split train, only {', '.join(parts)}")
    held_out = [part for part in ("validation", "val", "test") if part in parts]
    official: dict[SplitName, str] = {"train": "train"}
    if held_out:
        official["val"] = held_out[0]
    if "test" in held_out[1:]:
        official["test"] = "test"
    places: dict[str, _Place] = {}
    given: dict[SplitName, list[str]] = {}
    for split, part in official.items():
        rows, mask_column = _undecoded(parts[part], f"{repo}: split {part}")
        numbered = [f"{part}-{row:04d}" for row in range(len(rows))]
        given[split] = list(rows["name"]) if "name" in rows.features else numbered
        for row, case in enumerate(given[split]):
            if case in places:
                raise DataError(f"{repo}: {case!r} is the name of two cases")
            places[case] = rows, row, mask_column
    findings = [
        Finding("", "unused split", "warning", f"split {part}: {len(rows)} cases, not used")
        for part, rows in parts.items()
        if part not in official.values()
    ]
    shown = name if name in HUB_SOURCES else Path(name).name
    own = given if "val" in given else {}
    load = partial(_load_case, places, selection)
    return Source(shown, list(places), own, load, findings, licence=known["licence"], citation=known["citation"])


def _load_case(places: Mapping[str, _Place], selection: Selection, name: str) -> Case:
    rows, row, mask_column = places[name]
    record = rows[row]
    image, mask = (record[column]["bytes"] or record[column]["path"] for column in ("image", mask_column))
    try:
        return read_case(name, image, [mask], selection)
    except DataError as error:
        told = str(error) if str(error).startswith(name) else f"{name}: {error}"
        raise DataError(told, error.problem) from error


def _undecoded(rows: "datasets.Dataset", shown: str) -> tuple["datasets.Dataset", str]:
    """The rows with images as encoded bytes, for the reader that files go through, and the name of the mask column."""
    import datasets

    pictures = {column for column, kind in rows.features.items() if isinstance(kind, datasets.Image)}
    masks = [column for column in _MASK_COLUMNS if column in pictures]
    if "image" not in pictures or len(masks) != 1:
        found = ", ".join(f"{column} ({type(kind).__name__})" for column, kind in rows.features.items())
        needed = f"an Image column `image` and exactly one of {', '.join(_MASK_COLUMNS)}"
        raise DataError(f"{shown} has the columns {found}; needed are {needed}")
    encoded = datasets.Image(decode=False)
    return rows.cast_column("image", encoded).cast_column(masks[0], encoded), masks[0]


def _load_parts(repo: str) -> "datasets.DatasetDict":
    """The splits of a repository or a local copy of one, from the cache if the hub does not answer."""
    import datasets

    local = Path(repo).expanduser()
    answers = local.is_dir() or hub_answers()
    before: Any = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = before or not answers  # look into the cache only: there is no argument for it
    try:
        if any((local / mark).is_file() for mark in ("dataset_dict.json", "state.json")):  # written by save_to_disk
            saved = datasets.load_from_disk(str(local))
            return saved if isinstance(saved, datasets.DatasetDict) else datasets.DatasetDict(train=saved)
        return datasets.load_dataset(str(local) if local.is_dir() else repo)
    except (datasets.exceptions.DatasetsError, HfHubHTTPError, OSError, ValueError, RuntimeError) as error:
        silent = f"the hub ({constants.ENDPOINT}) does not answer, or HF_HUB_OFFLINE is set, and the data set is not "
        silent += "in the cache: connect to the network, or use a folder with images/ and masks/ (--data PATH)"
        raise DataError(f"{repo}: {f'cannot be loaded: {error}' if answers else silent}") from error
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def hub_answers() -> bool:
    """Whether the hub answers within `PROBE_SECONDS`, whatever it says; False where `HF_HUB_OFFLINE` is set.

    The hub's own client retries for half a minute before it gives up.
    """
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        requests.head(constants.ENDPOINT, timeout=PROBE_SECONDS)
    except requests.RequestException:
        return False
    return True
