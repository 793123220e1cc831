"""What is wrong with a data set, before a model learns from it: one table, one exit status."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from medsam_helpers.data.case import SPLITS, Cases, Dataset
from medsam_helpers.data.duplicates import NEAR_DUPLICATE, near_duplicates, thumbnail
from medsam_helpers.data.folder import FolderIndex, index_folder
from medsam_helpers.data.reading import read_image, read_mask_values
from medsam_helpers.errors import DataError
from medsam_helpers.prompts import mask_to_boxes

_SEVERITIES = ("error", "warning", "note")

_Finding = tuple[str, str, str]  # problem, severity, detail
_Read = Callable[[], tuple[np.ndarray, np.ndarray, int]]  # image, values of its mask, their full scale
_Job = tuple[str, str, _Read]  # case, split, how to read it
_Row = tuple[str, str, str, str, str]  # case, split, problem, severity, detail


@dataclass(frozen=True)
class AuditReport:
    """What an audit found.

    Args:
        name: of the data set.
        table: one row a finding: case, split, problem, severity (error, warning, note), detail.
        cases: one row a readable case: case, split, height, width, lesion_share, lesions.
    """

    name: str
    table: pd.DataFrame
    cases: pd.DataFrame

    @property
    def errors(self) -> pd.DataFrame:
        """The rows that keep the data from being trained on, or that leak into the reported score."""
        return self.table[self.table.severity == "error"]

    @property
    def exit_status(self) -> int:
        """1 if there is an error, else 0."""
        return int(len(self.errors) > 0)

    def __str__(self) -> str:
        parts = [self._summary()]
        for severity in _SEVERITIES:
            rows = self.table[self.table.severity == severity]
            counts = ", ".join(f"{count} {problem}" for problem, count in rows.problem.value_counts().items())
            parts.append(f"{severity}s: {counts or 'none'}")
            if severity != "note" and len(rows):
                shown = rows.drop(columns="severity").apply(lambda column: column.str.ljust(column.str.len().max()))
                parts.append(shown.to_string(index=False, justify="left"))
        return "\n".join(parts)

    def _summary(self) -> str:
        cases = self.cases
        if cases.empty:
            return f"{self.name}: no readable case"
        splits = ", ".join(f"{count} {split or 'in no split'}" for split, count in cases.split.value_counts().items())
        area = " / ".join(f"{100 * share:.1f}" for share in cases.lesion_share.quantile([0, 0.25, 0.5, 0.75, 1]))
        return (
            f"{self.name}: {len(cases)} readable cases ({splits})\n"
            f"width {cases.width.min()} to {cases.width.max()} px, height {cases.height.min()} to "
            f"{cases.height.max()} px\n"
            f"lesion area, % of the image, min / quartiles / max: {area}"
        )


@dataclass(frozen=True)
class _Look:
    """What is kept of one case after its pixels are let go; an unreadable one has no size."""

    findings: list[_Finding]
    size_hw: tuple[int, int] | None = None
    lesion_share: float = float("nan")
    lesions: int = 0
    digest: str = ""
    thumbnail: np.ndarray | None = None


def audit(source: str | Path | Dataset, *, split_seed: int = 0, show_progress: bool = True) -> AuditReport:
    """Looks at every case of a folder or a data set.

    Errors: unreadable files, missing partners, two files of one stem, image and mask of different sizes, empty masks,
    and duplicates or near-duplicates between val and the other splits. Warnings: masks that cover everything,
    duplicates elsewhere (between train and dev they flatter the choice of a model, not its score), scenes that may be
    the same, files that were left out. Notes: several lesions, masks with values between their two extremes.

    Args:
        source: a folder with `images/` and `masks/`, or a loaded data set.
        split_seed: decides the splits for which a folder has no file.
        show_progress: show the bar of an audit that takes longer than a second.
    Raises:
        DataError: the folder lacks that layout, or its split files contradict each other.
    """
    if isinstance(source, Dataset):
        name, (rows, jobs) = source.name, _dataset_jobs(source)
    else:
        index = index_folder(source)
        name, (rows, jobs) = index.path.resolve().name, _folder_jobs(index, split_seed)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # Pillow decodes outside the interpreter's lock
        looking = pool.map(lambda job: _look(job[2]), jobs)
        looks = list(tqdm(looking, "audit", len(jobs), delay=1, disable=not show_progress))
    looked = [(case, split, look) for (case, split, _), look in zip(jobs, looks, strict=True)]
    rows += [(case, split, *finding) for case, split, look in looked for finding in look.findings]
    readable = [(case, split, look) for case, split, look in looked if look.size_hw]
    rows += _duplicates(readable)
    rows.sort(key=lambda row: (_SEVERITIES.index(row[3]), row[2]))
    return AuditReport(
        name,
        pd.DataFrame(rows, columns=["case", "split", "problem", "severity", "detail"]),
        pd.DataFrame(
            [(case, split, *look.size_hw, look.lesion_share, look.lesions) for case, split, look in readable],
            columns=["case", "split", "height", "width", "lesion_share", "lesions"],
        ),
    )


def _dataset_jobs(dataset: Dataset) -> tuple[list[_Row], list[_Job]]:
    def read(cases: Cases, number: int) -> tuple[np.ndarray, np.ndarray, int]:
        case = cases[number]
        return case.image, case.mask.astype(np.uint8), 1

    rows = [("", "", "left out", "warning", text) for text in dataset.left_out]
    splits = {split: getattr(dataset, split) for split in SPLITS}
    return rows, [
        (name, split, partial(read, cases, number))
        for split, cases in splits.items()
        for number, name in enumerate(cases.names)
    ]


def _folder_jobs(index: FolderIndex, split_seed: int) -> tuple[list[_Row], list[_Job]]:
    def read(stem: str) -> tuple[np.ndarray, np.ndarray, int]:
        return read_image(index.images[stem][0]), *read_mask_values(index.masks[stem][0])

    split_of = {stem: split for split, stems in index.splits(split_seed).items() for stem in stems}
    broken = index.broken()
    rows = [(stem, split_of.get(stem, ""), problem, "error", why) for stem, (problem, why) in broken.items()]
    rows += [(stem, "", "in no split", "note", "neither in train.txt nor in val.txt") for stem in index.unlisted]
    rows += [(file.stem, "", "ignored file", "warning", f"{file}: no format Pillow reads") for file in index.ignored]
    return rows, [(stem, split_of.get(stem, ""), partial(read, stem)) for stem in index.stems if stem not in broken]


def _look(read: _Read) -> _Look:
    try:
        image, values, full_scale = read()
    except DataError as error:
        return _Look([("unreadable", "error", str(error))])
    findings = []
    mask = values > full_scale / 2
    lesions = len(mask_to_boxes(mask, "components")) if mask.any() else 0
    if mask.shape != image.shape[:2]:
        size = "mask {1} x {0}, image {3} x {2}".format(*mask.shape, *image.shape)
        findings.append(("wrong size", "error", f"{size} (width x height, EXIF rotation applied)"))
    if not mask.any():
        findings.append(("empty mask", "error", "no box can be drawn round it"))
    elif mask.all():
        findings.append(("all foreground", "warning", "the mask covers the whole image"))
    if lesions > 1:
        findings.append(("several lesions", "note", f"{lesions} connected components"))
    between = np.count_nonzero((values > 0) & (values < full_scale))
    if between:
        share = 100 * between / values.size
        findings.append(
            ("mask not binary", "note", f"{share:.2f} % between 0 and {full_scale}: JPEG noise, soft edges")
        )
    digest = hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest()
    return _Look(findings, image.shape[:2], float(mask.mean()), lesions, digest, thumbnail(image))


def _duplicates(readable: list[tuple[str, str, _Look]]) -> Iterator[_Row]:
    """Pairs with the same pixels (each against the first of its kind), and pairs that only look the same."""
    if not readable:
        return
    digests = [look.digest for _, _, look in readable]
    first_of = {digest: number for number, digest in reversed(list(enumerate(digests)))}
    same = [(first_of[digest], number, 1.0) for number, digest in enumerate(digests) if first_of[digest] < number]
    alike = near_duplicates(np.stack([look.thumbnail for _, _, look in readable]))
    for i, j, correlation in [*same, *(pair for pair in alike if digests[pair[0]] != digests[pair[1]])]:
        (case, split, _), (other, other_split, _) = readable[i], readable[j]
        identical, near = digests[i] == digests[j], correlation >= NEAR_DUPLICATE
        problem = "duplicate" if identical else "near-duplicate" if near else "same scene"
        across = split != other_split
        leaks = across and "val" in (split, other_split) and (identical or near)
        detail = "the same pixels as" if identical else f"correlation {correlation:.3f} with"
        yield (
            case,
            split,
            problem + " across splits" * across,
            "error" if leaks else "warning",
            f"{detail} {other} ({other_split or 'no split'})",
        )
