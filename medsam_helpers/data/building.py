"""From sources to a `Dataset`: every case in use is decoded once, to see that it can be used.

The cases of several sources are kept apart by name: "busi::benign_1" is the case benign_1 of the set busi.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from medsam_helpers.data.case import SPLITS, Case, Cases, Dataset, Finding, SplitName, set_of
from medsam_helpers.data.describe import Checked, absent_classes, check_cases, doubtful_masks
from medsam_helpers.data.duplicates import NEAR_DUPLICATE, near_duplicates
from medsam_helpers.data.sources import Selection, Source
from medsam_helpers.data.splits import groups_of, listing, make_splits
from medsam_helpers.errors import DataError, some


def build_dataset(source: Source, selection: Selection) -> Dataset:
    """The first cases of each split; `DataError`: a bad one may not be skipped, none is left, masks are label maps."""
    group_of = groups_of(source.names, selection.group_by)
    splits = make_splits(source.names, selection.split_seed, source.given, group_of)
    broken = {finding.case: finding for finding in source.findings if finding.severity == "error"}
    bad = [finding for name, finding in broken.items() if name not in source.unlisted]
    kept: dict[SplitName, list[Checked]] = {}
    for split in SPLITS:
        whole = [name for name in splits[split] if name not in broken]
        kept[split], errors = _first_good(whole, selection.limit_of[split], source.load, selection.skip_bad)
        bad += errors
    checked = [case for cases in kept.values() for case in cases]
    bad += doubtful_masks(checked)
    reasons = [finding.detail for finding in bad]
    unclear = [finding.detail for finding in bad if finding.problem in ("label map", "inverted mask")]
    if unclear and (selection.skip_bad or len(unclear) == len(bad)):  # no bad files: one answer serves them all
        count = f"{len(unclear)} mask{'s leave' if len(unclear) > 1 else ' leaves'} it open what is the lesion"
        raise DataError(f"{source.name}: {count}; the first is {unclear[0]}")
    if bad and not selection.skip_bad:
        told = f"{len(bad)} bad case{'s' * (len(bad) > 1)}; mend them, or leave them out with skip_bad (--skip-bad):"
        raise DataError(listing(f"{source.name}: {told}", reasons))
    if not any(splits.values()) or (bad and not checked):
        raise DataError(listing(f"{source.name}: no usable case is left", reasons))
    twin_of = twins(kept)
    alike = {case: f"looks like {twin}" for case, twin in twin_of.items()}
    if selection.drop_duplicates:
        reasons += [f"{case}: {told}" for case, told in alike.items()]
        kept = {split: [case for case in cases if case.name not in alike] for split, cases in kept.items()}
        alike = {}
    elif across := [f"{case} {alike[case]}" for case, twin in twin_of.items() if set_of(case) != set_of(twin)]:
        told = "training images look like scoring images of another set; leave them out with drop_duplicates"
        raise DataError(listing(f"{source.name}: {told} (--drop-duplicates):", across))
    findings = [finding for finding in source.findings if finding.severity != "error"]
    findings += [finding for case in checked for finding in case.findings]
    findings += [Finding(case, "near-duplicate of a scoring image", "warning", told) for case, told in alike.items()]
    findings += absent_classes(checked)
    for line in summary(findings):
        warnings.warn(f"{source.name}: {line}", stacklevel=3)
    about: Any = {"licence": source.licence, "citation": source.citation, "group_of": group_of}
    about |= {split: Cases([case.name for case in cases], source.load) for split, cases in kept.items()}
    return Dataset(source.name, **about, left_out=tuple(reasons), findings=tuple(findings))


def join(sources: Sequence[Source], selection: Selection) -> Source:
    """The source of all cases, each in the split where its own set has it; `DataError` where two sets have one name."""
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        raise DataError(f"{', '.join(names)}: two data sets of one name: rename the folder of one")
    places, findings = dict[str, tuple[Source, str]](), list[Finding]()
    given: dict[SplitName, list[str]] = {split: [] for split in SPLITS}
    for source in sources:
        prefix, group_of = f"{source.name}::", groups_of(source.names, selection.group_by)
        places |= {prefix + name: (source, name) for name in source.names}
        findings += [finding._replace(case=finding.case and prefix + finding.case) for finding in source.findings]
        for split, members in make_splits(source.names, selection.split_seed, source.given, group_of).items():
            given[split] += [prefix + name for name in members]
    unlisted = [f"{source.name}::{name}" for source in sources for name in source.unlisted]
    terms = ["; ".join(f"{one.name}: {getattr(one, of)}" for one in sources) for of in ("licence", "citation")]
    return Source(" + ".join(names), list(places), given, partial(_load, places), findings, unlisted, *terms)


def _load(places: Mapping[str, tuple[Source, str]], name: str) -> Case:
    source, own = places[name]
    case = source.load(own)
    return replace(case, name=name, findings=tuple(finding._replace(case=name) for finding in case.findings))


def summary(findings: Sequence[Finding]) -> Iterator[str]:
    """One line a kind of warning, and one for each note on the whole: what a person should see unasked."""
    kinds: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.severity == "warning" or not finding.case:
            kinds.setdefault(finding.problem, []).append(finding)
    for problem, found in kinds.items():
        names = [finding.case for finding in found if finding.case]
        where = f" in {len(names)} ({some(names)})" if names else ""
        yield f"{problem}{where}: {found[0].detail}"


def twins(splits: Mapping[SplitName, Sequence[Checked]]) -> dict[str, str]:
    """The train and dev cases that look like one of val or test, each with that one."""
    seen, held = [*splits["train"], *splits["dev"]], [*splits["val"], *splits["test"]]
    pairs = near_duplicates(np.stack([case.thumbnail for case in (*seen, *held)])) if seen and held else []
    return {
        seen[i].name: held[j - len(seen)].name
        for i, j, correlation in pairs
        if i < len(seen) <= j and correlation >= NEAR_DUPLICATE
    }


def _first_good(
    names: Sequence[str], limit: int | None, load: Callable[[str], Case], skip_bad: bool
) -> tuple[list[Checked], list[Finding]]:
    """The first `limit` good cases, and the errors met on the way; without `skip_bad` only `limit` are looked at."""
    wanted = len(names) if limit is None else limit
    good: list[Checked] = []
    bad: list[Finding] = []
    while batch := names[len(good) + len(bad) :][: wanted - len(good)]:
        found, errors = check_cases(batch, load)
        good += found
        bad += errors
        if not skip_bad:
            break
    return good, bad
