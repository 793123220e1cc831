"""Several sources as one, their cases kept apart by name: "busi::benign_1" is the case benign_1 of the set busi."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from medsam_helpers.data.case import SPLITS, Case, Finding, SplitName
from medsam_helpers.data.sources import Selection, Source
from medsam_helpers.data.splits import groups_of, make_splits
from medsam_helpers.errors import DataError

_Place = tuple[Callable[[str], Case], str]  # what loads a case, and its name there


def join(sources: Sequence[Source], selection: Selection) -> Source:
    """The source of all cases, each in the split where its own set has it; `DataError` where two sets have one name."""
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        raise DataError(f"{', '.join(names)}: two data sets of one name: rename the folder of one")
    places, findings = dict[str, _Place](), list[Finding]()
    given: dict[SplitName, list[str]] = {split: [] for split in SPLITS}
    for source in sources:
        prefix, group_of = f"{source.name}::", groups_of(source.names, selection.group_by)
        places |= {prefix + name: (source.load, name) for name in source.names}
        findings += [finding._replace(case=finding.case and prefix + finding.case) for finding in source.findings]
        for split, members in make_splits(source.names, selection.split_seed, source.given, group_of).items():
            given[split] += [prefix + name for name in members]
    unlisted = [f"{source.name}::{name}" for source in sources for name in source.unlisted]
    terms = ["; ".join(f"{one.name}: {getattr(one, of)}" for one in sources) for of in ("licence", "citation")]
    return Source(" + ".join(names), list(places), given, partial(_load, places), findings, unlisted, *terms)


def _load(places: Mapping[str, _Place], name: str) -> Case:
    load, own = places[name]
    case = load(own)
    return replace(case, name=name, findings=tuple(finding._replace(case=name) for finding in case.findings))
