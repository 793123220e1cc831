"""What is wrong with a data set, before a model learns from it: one table, one exit status."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medsam_helpers.data.case import Dataset, Finding
from medsam_helpers.data.describe import Checked, absent_classes, check_cases, doubtful_masks
from medsam_helpers.data.duplicates import NEAR_DUPLICATE, near_duplicates
from medsam_helpers.data.loading import load_data, open_source
from medsam_helpers.data.sources import Selection
from medsam_helpers.data.splits import groups_of, make_splits
from medsam_helpers.errors import some

_SEVERITIES = ("error", "warning", "note")
_FINDING = ["case", "split", "problem", "severity", "detail"]  # columns of the table
_CASE = ["case", "split", "height", "width", "lesion_share", "lesions"]


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
                f"{self.name}: {len(cases)} readable cases ({splits})"
                + "; fewer than 5 in val: no interval can be given" * (1 <= sum(cases.split == "val") < 5),
                f"width {width}, height {height}",
                f"lesion area, % of the image, min / quartiles / max: {area}",
            ]
        for severity in _SEVERITIES:
            rows = self.table[self.table.severity == severity]
            where = rows.case.where(rows.case != "", rows.detail).groupby(rows.problem).agg(list)
            told = (f"{len(of)} {problem}" + f" ({some(of)})" * (severity == "note") for problem, of in where.items())
            parts.append(f"{severity}s: {', '.join(told) or 'none'}")
            if severity != "note" and len(rows):
                few = rows.groupby("problem", sort=False).head(10).drop(columns="severity")
                shown = few.apply(lambda column: column.str.ljust(column.str.len().max()))
                parts.append(shown.to_string(index=False, justify="left"))
                parts += [f"... and {len(rows) - len(few)} more: `AuditReport.table` has all"] * (len(rows) > len(few))
        return "\n".join(parts)


def audit(source: str | Path | Dataset, *, show_progress: bool = True, **options: Any) -> AuditReport:
    """What is wrong with each case of a folder, of a data set of the hub, or of a loaded data set.

    Errors: files that cannot be used (damaged, of another size, label maps, photographs, empty masks, without a
    partner), and duplicates or near-duplicates between val or test and the other splits. Warnings: what can be read and
    may be wrong all the same (orientation, inverted masks, outlines, images that are nearly constant, lesions that
    vanish in training), other duplicates, files that were not read. Notes: what is only to be known.

    Args:
        source: as for `load_data`, or its result.
        options: the settings of `Selection`; limits are not looked at.
    Raises:
        DataError: the folder has another layout, or its lists contradict each other.
    """
    if isinstance(source, str) and source.startswith("phantom"):  # drawn: there are no files to look at
        source = load_data(source, **options)
    if isinstance(source, Dataset):
        name, findings = source.name, [Finding("", "left out", "warning", text) for text in source.left_out]
        findings += [finding for finding in source.findings if not finding.case]
        split_of = {case: split for split, cases in source.splits.items() for case in cases.names}
        names, load = list(split_of), lambda case: source.splits[split_of[case]].load(case)
    else:
        selection = Selection(**options)
        opened = open_source(source, selection)
        name, findings, load = opened.name, list(opened.findings), opened.load
        group_of = groups_of(opened.names, selection.group_by)
        splits = make_splits(opened.names, selection.split_seed, opened.given, group_of)
        split_of = {case: split for split, cases in splits.items() for case in cases}
        broken = {finding.case for finding in findings if finding.severity == "error"}
        names = [case for case in opened.names if case not in broken]
    readable, errors = check_cases(names, load, show_progress, "audit")
    findings += errors + [finding for case in readable for finding in case.findings]
    findings += [*doubtful_masks(readable), *absent_classes(readable), *_duplicates(readable, split_of)]
    findings.sort(key=lambda finding: (_SEVERITIES.index(finding.severity), finding.problem))
    table = [(case, split_of.get(case, ""), *kind, told.removeprefix(f"{case}: ")) for case, *kind, told in findings]
    rows = [(case.name, split_of.get(case.name, ""), *(getattr(case, of) for of in _CASE[2:])) for case in readable]
    return AuditReport(name, pd.DataFrame(table, columns=_FINDING), pd.DataFrame(rows, columns=_CASE))


def _duplicates(cases: list[Checked], split_of: Mapping[str, str]) -> Iterator[Finding]:
    """Pairs with the same pixels (each against the first of its kind), and pairs that only look the same."""
    first_of: dict[str, int] = {}
    firsts = [first_of.setdefault(case.image_digest, number) for number, case in enumerate(cases)]
    same = [(first, number, 1.0) for number, first in enumerate(firsts) if first < number]
    alike = near_duplicates(np.stack([case.thumbnail for case in cases])) if cases else []
    for i, j, correlation in same + [pair for pair in alike if firsts[pair[0]] != firsts[pair[1]]]:
        splits = {split_of.get(cases[number].name, "") for number in (i, j)}
        identical, near = firsts[i] == firsts[j], correlation >= NEAR_DUPLICATE
        leaks = near and len(splits) > 1 and bool(splits & {"val", "test"})
        problem = "duplicate" if identical else "near-duplicate" if near else "same scene"
        detail = "the same pixels as" if identical else f"correlation {correlation:.3f} with"
        partner = f"{cases[j].name} ({split_of.get(cases[j].name) or 'no split'})"
        where = " across splits" * (len(splits) > 1)
        yield Finding(cases[i].name, problem + where, "error" if leaks else "warning", f"{detail} {partner}")
