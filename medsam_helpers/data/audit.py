"""What is wrong with a data set, before a model learns from it: one table, one exit status."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.contrib.concurrent import thread_map

from medsam_helpers.data.case import Dataset, array_digest
from medsam_helpers.data.duplicates import NEAR_DUPLICATE, near_duplicates, thumbnail
from medsam_helpers.data.folder import index_folder
from medsam_helpers.data.reading import read_image, read_mask_values
from medsam_helpers.data.splits import make_splits
from medsam_helpers.errors import DataError
from medsam_helpers.prompts import mask_to_boxes

_SEVERITIES = ("error", "warning", "note")
_FINDING = ["case", "split", "problem", "severity", "detail"]  # columns of the table
_CASE = ["case", "split", "height", "width", "lesion_share", "lesions"]
_Finding = tuple[str, str, str, str, str]
_Pixels = tuple[np.ndarray, np.ndarray, int]  # image, values of its mask, their full scale


@dataclass(frozen=True)
class AuditReport:
    """What an audit found."""

    name: str
    table: pd.DataFrame  # one row a finding: case, split, problem, severity (error, warning, note), detail
    cases: pd.DataFrame  # one row a readable case: case, split, height, width, lesion_share, lesions

    @property
    def errors(self) -> pd.DataFrame:
        """The rows that keep the data from being trained on, or that leak into the reported score."""
        return self.table[self.table.severity == "error"]

    @property
    def exit_status(self) -> int:
        """1 if there is an error, else 0."""
        return int(len(self.errors) > 0)

    def __str__(self) -> str:
        parts = [f"{self.name}: no readable case"]
        if len(cases := self.cases):
            splits = ", ".join(f"{count} {name or 'in no split'}" for name, count in cases.split.value_counts().items())
            width, height = (f"{sides.min()} to {sides.max()} px" for sides in (cases.width, cases.height))
            area = " / ".join(f"{100 * share:.1f}" for share in cases.lesion_share.quantile([0, 0.25, 0.5, 0.75, 1]))
            parts = [
                f"{self.name}: {len(cases)} readable cases ({splits})",
                f"width {width}, height {height}",
                f"lesion area, % of the image, min / quartiles / max: {area}",
            ]
        for severity in _SEVERITIES:
            rows = self.table[self.table.severity == severity]
            counts = ", ".join(f"{count} {problem}" for problem, count in rows.problem.value_counts().items())
            parts.append(f"{severity}s: {counts or 'none'}")
            if severity != "note" and len(rows):
                shown = rows.drop(columns="severity").apply(lambda column: column.str.ljust(column.str.len().max()))
                parts.append(shown.to_string(index=False, justify="left"))
        return "\n".join(parts)


def audit(source: str | Path | Dataset, *, split_seed: int = 0, show_progress: bool = True) -> AuditReport:
    """What is wrong with each case of a folder or a data set.

    Errors: unreadable files, missing partners, two files of one stem, image and mask of different sizes, empty masks,
    duplicates or near-duplicates between val and the other splits. Warnings: masks that cover everything, duplicates
    elsewhere, scenes that may be the same, files that were left out. Notes: several lesions, masks that are not binary.

    Args:
        source: a folder with `images/` and `masks/`, or a loaded data set.
        split_seed: decides the splits for which a folder has no file.
        show_progress: show the bar of an audit that takes longer than a second.
    Raises:
        DataError: the folder lacks that layout, or its split files contradict each other.
    """
    findings: list[_Finding]
    jobs: list[tuple[str, str]]
    if isinstance(source, Dataset):
        name = source.name
        findings = [("", "", "left out", "warning", text) for text in source.left_out]
        jobs = [(case, split) for split, cases in source.splits.items() for case in cases.names]

        def read(case: str, split: str) -> _Pixels:
            loaded = getattr(source, split).load(case)
            return loaded.image, loaded.mask.astype(np.uint8), 1

    else:
        index = index_folder(source)
        name, broken = index.path.resolve().name, index.broken()
        listed = make_splits(index.stems, split_seed, index.listed)
        split_of = dict.fromkeys(index.stems, "") | {stem: split for split, stems in listed.items() for stem in stems}
        findings = [(stem, split_of[stem], problem, "error", why) for stem, (problem, why) in broken.items()]
        why = "neither in train.txt nor in val.txt"
        findings += [(stem, "", "in no split", "note", why) for stem in index.unlisted]
        findings += [(f.stem, "", "ignored file", "warning", f"{f}: no format Pillow reads") for f in index.ignored]
        jobs = [(stem, split_of[stem]) for stem in index.stems if stem not in broken]

        def read(case: str, split: str) -> _Pixels:
            return read_image(index.images[case][0]), *read_mask_values(index.masks[case][0])

    # Threads help: Pillow decodes outside Python's global lock.
    looked = thread_map(lambda job: _look_at(read, *job), jobs, desc="audit", delay=1, disable=not show_progress)
    readable = [row for _, row in looked if row]
    findings += [finding for found, _ in looked for finding in found] + list(_duplicates(readable))
    findings.sort(key=lambda finding: (_SEVERITIES.index(finding[3]), finding[2]))
    return AuditReport(name, pd.DataFrame(findings, columns=_FINDING), pd.DataFrame(readable, columns=_CASE))


def _look_at(read: Callable[[str, str], _Pixels], case: str, split: str) -> tuple[list[_Finding], dict[str, Any]]:
    """What is wrong with one case, and its row of `cases` with what finds its duplicates; none if unreadable."""
    try:
        image, values, full_scale = read(case, split)
    except DataError as error:
        return [(case, split, "unreadable", "error", str(error))], {}
    mask = values > full_scale / 2
    lesions = len(mask_to_boxes(mask, "components")) if mask.any() else 0
    between = ((values > 0) & (values < full_scale)).mean()
    found = []
    if mask.shape != image.shape[:2]:
        size = "mask {1} x {0}, image {3} x {2}".format(*mask.shape, *image.shape)
        found.append(("wrong size", "error", f"{size} (width x height, EXIF rotation applied)"))
    if not mask.any():
        found.append(("empty mask", "error", "no box can be drawn round it"))
    elif mask.all():
        found.append(("all foreground", "warning", "the mask covers the whole image"))
    if lesions > 1:
        found.append(("several lesions", "note", f"{lesions} connected components"))
    if between:
        detail = f"{100 * between:.2f} % between 0 and {full_scale}: JPEG noise, soft edges"
        found.append(("mask not binary", "note", detail))
    row = dict(zip(_CASE, (case, split, *image.shape[:2], float(mask.mean()), lesions), strict=True))
    row |= {"digest": array_digest(image), "thumbnail": thumbnail(image)}
    return [(case, split, *finding) for finding in found], row


def _duplicates(rows: list[dict[str, Any]]) -> Iterator[_Finding]:
    """Pairs with the same pixels (each against the first of its kind), and pairs that only look the same."""
    first_of: dict[str, int] = {}
    firsts = [first_of.setdefault(row["digest"], number) for number, row in enumerate(rows)]
    same = [(first, number, 1.0) for number, first in enumerate(firsts) if first < number]
    alike = near_duplicates(np.stack([row["thumbnail"] for row in rows])) if rows else []
    for i, j, correlation in same + [pair for pair in alike if firsts[pair[0]] != firsts[pair[1]]]:
        one, other = rows[i], rows[j]
        identical, near = firsts[i] == firsts[j], correlation >= NEAR_DUPLICATE
        problem = "duplicate" if identical else "near-duplicate" if near else "same scene"
        across = one["split"] != other["split"]
        severity = "error" if across and "val" in (one["split"], other["split"]) and near else "warning"
        detail = "the same pixels as" if identical else f"correlation {correlation:.3f} with"
        partner = f"{other['case']} ({other['split'] or 'no split'})"
        yield one["case"], one["split"], problem + " across splits" * across, severity, f"{detail} {partner}"
