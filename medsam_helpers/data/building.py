"""From a source to a `Dataset`: every case in use is decoded once, to see that it can be used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from medsam_helpers.data.case import SPLITS, Case, Cases, Dataset, Finding, SplitName
from medsam_helpers.data.describe import Checked, check_cases, check_one_value
from medsam_helpers.data.duplicates import NEAR_DUPLICATE, near_duplicates
from medsam_helpers.data.splits import Selection, Source, groups_of, listing, make_splits
from medsam_helpers.errors import DataError


def build_dataset(source: Source, selection: Selection) -> Dataset:
    """The data set of the first cases of each split, every one of them decoded once to see that it can be used.

    Raises:
        DataError: a case in use is bad and may not be skipped, no case is left, or the masks are label maps.
    """
    group_of = groups_of(source.names, selection.group_by)
    splits = make_splits(source.names, selection.split_seed, source.given, group_of)
    bad = {finding.case: finding.detail for finding in source.findings if finding.severity == "error"}
    bad = {name: why for name, why in bad.items() if name not in source.unlisted}
    kept: dict[SplitName, list[Checked]] = {}
    for split in SPLITS:
        kept[split], found = _first_good(splits[split], selection.limits[split], source.load, bad, selection.skip_bad)
        bad |= found
    reasons = list(bad.values())
    if bad and not selection.skip_bad:
        count = f"{len(bad)} bad case{'s' * (len(bad) > 1)}"
        told = f"{source.name}: {count}; mend them, or leave them out with skip_bad (--skip-bad):"
        raise DataError(listing(told, reasons))
    if not any(splits.values()) or (bad and not any(kept.values())):
        raise DataError(listing(f"{source.name}: no usable case is left", reasons))
    checked = [case for cases in kept.values() for case in cases]
    check_one_value(source.name, checked)
    inverted = [found for case in checked for found in case.findings if found.problem == "inverted mask"]
    if len(inverted) > len(checked) / 2 and not selection.classes:
        told = f"{source.name}: {len(inverted)} of {len(checked)} masks are inverted as it seems ({inverted[0].detail}"
        raise DataError(f"{told}; if white is: --classes 255)", "inverted mask")
    leaks = list(leaking(kept))
    dropped = {finding.case for finding in leaks} if selection.drop_duplicates else set()
    findings = [finding for case in checked for finding in case.findings] + ([] if dropped else leaks)
    if dropped:
        reasons += [f"{finding.case}: {finding.detail}" for finding in leaks]
    cases = {
        split: Cases([case.name for case in kept[split] if case.name not in dropped], source.load) for split in SPLITS
    }
    return Dataset(
        source.name,
        **cases,
        licence=source.licence,
        citation=source.citation,
        left_out=tuple(reasons),
        findings=(*(finding for finding in source.findings if finding.severity != "error"), *findings),
        group_of=group_of,
    )


def leaking(splits: Mapping[SplitName, Sequence[Checked]]) -> list[Finding]:
    """The train and dev cases that look like one of val or test."""
    seen = [case for split in ("train", "dev") for case in splits.get(split, ())]  # type: ignore[call-overload]
    held = [case for split in ("val", "test") for case in splits.get(split, ())]  # type: ignore[call-overload]
    thumbnails = [case.thumbnail for case in (*seen, *held) if case.thumbnail is not None]
    pairs = near_duplicates(np.stack(thumbnails)) if seen and held else []
    return [
        Finding(seen[i].name, "near-duplicate of a scoring image", "warning", f"looks like {held[j - len(seen)].name}")
        for i, j, correlation in pairs
        if i < len(seen) <= j and correlation >= NEAR_DUPLICATE
    ]


def _first_good(
    names: Sequence[str], limit: int | None, load: Callable[[str], Case], bad: Mapping[str, str], skip_bad: bool
) -> tuple[list[Checked], dict[str, str]]:
    """The first `limit` good cases, and the bad ones met on the way; without `skip_bad` only `limit` are looked at."""
    wanted = len(names) if limit is None else min(limit, len(names))
    good: list[Checked] = []
    reasons: dict[str, str] = {}
    while batch := names[len(good) + len(reasons) :][: wanted - len(good)]:
        reasons |= {name: bad[name] for name in batch if name in bad}
        for case in check_cases([name for name in batch if name not in bad], load):
            if any(finding.problem == "label map" for finding in case.findings):
                raise DataError(case.error, "label map")
            if case.error:
                reasons[case.name] = case.error
            else:
                good.append(case)
        if not skip_bad:
            break
    return good, reasons
