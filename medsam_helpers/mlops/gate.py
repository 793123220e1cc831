"""The gate: whether a challenger becomes the champion, decided on images that neither has seen, and noted."""

import argparse
import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Self

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.utils import get_results_from_paginated_fn

from medsam_helpers.data.case import Cases, Dataset
from medsam_helpers.data.loading import load_data
from medsam_helpers.errors import DataError, MedsamError, one_line, some
from medsam_helpers.evaluation.evaluate import evaluate
from medsam_helpers.evaluation.intervals import Interval
from medsam_helpers.evaluation.tables import paired_gain
from medsam_helpers.files import cache_dir
from medsam_helpers.mlops import registry
from medsam_helpers.mlops.registry import CHALLENGER, CHAMPION, RegistryError, version_of
from medsam_helpers.mlops.server import tracking_uri
from medsam_helpers.runs.embed import embed_cases
from medsam_helpers.runs.seen import read_seen, seen_among

FEWEST = 30  # different images that a promotion needs, unless it is said otherwise
_VERDICT = "medsam.verdict."  # tags of a version, numbered
_LAST_CHAMPION = "medsam.champion"  # tag of a model: the version that was promoted last


@dataclass(frozen=True)
class Verdict:
    """The gate's finding: `gain` is Dice minus that of `other` (the champion's version, or "zero-shot") on n images."""

    name: str
    version: str
    other: str
    prompt: str
    n: int
    gain: Interval
    promoted: bool
    data: str  # name and digest of val, all of it
    seen: int  # images left out, since one of the two had seen them
    number: int  # of the verdicts on this version, this one counted

    def __str__(self) -> str:
        other = f"version {self.other}" if self.other != "zero-shot" else self.other
        left = f" ({self.seen} seen before left out)" if self.seen else ""
        found = f"{self.gain} against {other} on {self.n} images{left}: {'not ' * (not self.promoted)}promoted"
        return f"{self.name} version {self.version}: {found}{f', verdict {self.number}' * (self.number > 1)}"

    def as_json(self) -> str:
        """All of it as a JSON object; an interval of too few images is null."""
        return json.dumps(asdict(self) | {"gain": self.gain.for_json()})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The verdict that `as_json` wrote."""
        known = json.loads(text)
        gain = Interval(*(float("nan") if value is None else value for value in known["gain"]))
        return cls(**known | {"gain": gain})


def judge(
    client: MlflowClient,
    name: str,
    dataset: Dataset,
    prompt: str = "j20",
    version: str | None = None,
    *,
    fewest: int = FEWEST,
    drop_seen: bool = False,
    once: bool = False,
) -> Verdict:
    """The verdict on a challenger against the champion (or the zero-shot base) on val; promotes it if it is better.

    Better: the 95 % interval (Student's t) of the paired difference in Dice lies above zero, on images new to both.
    One judge at a time on this machine; one elsewhere that promotes meanwhile is noticed.

    Args:
        dataset: whose val decides. An image that is there twice counts once.
        prompt: of the comparison, "exact" or "jN".
        version: which is judged; default: the challenger.
        fewest: different images that it takes; below 5 there is no interval, and nothing is promoted.
        drop_seen: leave images out that one of the two, or what it was trained from, has seen, in place of an error.
        once: where this version was judged on this data with this prompt before, give that verdict again.
    Raises:
        RegistryError: there is no challenger, it is the champion already, the champion is missing or changed meanwhile.
        DataError: an image of val was trained on or selected on, or there are too few.
        CheckpointError: a version does not say what it was trained on.
        ConfigError: no model can have this name.
    """
    registry.check_model_name(name)
    place = cache_dir() / "locks" / hashlib.sha256(f"{client.tracking_uri} {name}".encode()).hexdigest()[:16]
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{place}.lock"):  # the system takes it from a judge that dies
        version = version or version_of(client, name, CHALLENGER)
        if version is None:
            raise RegistryError(f"{name} has no {CHALLENGER}: register a run first")
        before, data = verdicts(client, name, version), f"{dataset.name} {dataset.val.digest[:16]}"
        if once and (same := [one for one in before if (one.data, one.prompt) == (data, prompt)]):
            return same[-1]
        champion = _champion(client, name)
        if version == champion:
            raise RegistryError(f"{name} version {version} is the {CHAMPION} already")
        cases = _different(dataset.val)
        seen: dict[str, str] = {}
        for known in filter(None, (version, champion)):
            with registry.checkpoint_of(client, name, known) as folder:
                seen |= dict.fromkeys(seen_among(cases, read_seen(folder)), known)
        if seen and not drop_seen:
            told = f"{len(seen)} of these images ({some(seen)})"
            told = f"{name} version {next(iter(seen.values()))} was trained or selected on {told}"
            raise DataError(f"{told}: judge it on images new to it, or leave these out (drop_seen, --drop-seen)")
        cases = cases.named([case for case in cases.names if case not in seen])
        if len(cases) < fewest:
            told = f"{len(cases)} different new images with a lesion are too few to promote {name} version {version} on"
            raise DataError(f"{told}: take {fewest}, or say that fewer will do (fewest, --fewest)")
        models = {}
        for role, number in ((CHALLENGER, version), (CHAMPION, champion)):
            segmenter = registry.load_model(client, name, number or version, zero_shot=number is None)
            embed_cases(segmenter, cases, show_progress=False)  # of one base: encoded once
            models[role] = segmenter.predict_case
        table = evaluate(cases, models, prompts=[prompt], group_of=dataset.group_of, show_progress=False)
        gain = paired_gain(table, prompt, CHALLENGER, CHAMPION)
        better, other = bool(gain.low > 0), champion or "zero-shot"
        verdict = Verdict(name, version, other, prompt, len(cases), gain, better, data, len(seen), len(before) + 1)
        if better:
            if version_of(client, name, CHAMPION) != champion:
                raise RegistryError(f"{name}: the {CHAMPION} changed while version {version} was judged: judge again")
            client.set_registered_model_alias(name, CHAMPION, version)
            client.set_registered_model_tag(name, _LAST_CHAMPION, version)
        client.set_model_version_tag(name, version, f"{_VERDICT}{verdict.number}", verdict.as_json())
        return verdict


def _champion(client: MlflowClient, name: str) -> str | None:
    """The champion's version; None where there never was one."""
    model = client.get_registered_model(name)
    champion, last = model.aliases.get(CHAMPION), model.tags.get(_LAST_CHAMPION)
    if champion is None and last:
        do = f"give the alias {CHAMPION} to the version that is to be beaten"
        told = f"version {last} was promoted, and no version is the {CHAMPION} now"
        raise RegistryError(f"{name}: {told}: {do}, or delete the model's tag {_LAST_CHAMPION} to begin anew")
    return champion


def _different(cases: Cases) -> Cases:
    """The cases with a lesion, each image once."""
    first: dict[str, str] = {}
    for case in cases:
        if case.mask.any():
            first.setdefault(case.image_digest, case.name)
    return cases.named(list(first.values()))


def verdicts(client: MlflowClient, name: str, version: str) -> list[Verdict]:
    """Every verdict on a version, the oldest first: how often it was judged, on what."""
    tags = client.get_model_version(name, version).tags
    numbers = sorted(int(tag.removeprefix(_VERDICT)) for tag in tags if tag.startswith(_VERDICT))
    return [Verdict.from_json(tags[f"{_VERDICT}{number}"]) for number in numbers]


def unjudged(client: MlflowClient) -> list[ModelVersion]:
    """Each challenger that has no verdict and is not the champion."""
    models = get_results_from_paginated_fn(lambda n, page: client.search_registered_models(None, n, None, page), 100)
    named = [(model.name, model.aliases[CHALLENGER]) for model in models if CHALLENGER in model.aliases]
    challengers = [client.get_model_version(name, version) for name, version in named]
    waiting = [model for model in challengers if CHAMPION not in model.aliases]
    return [model for model in waiting if not any(tag.startswith(_VERDICT) for tag in model.tags)]


def main() -> None:
    """The gate as a command, for the workflow; its last line is the verdict as JSON."""
    parser = argparse.ArgumentParser(description="Judge a challenger on images that it was not selected on.")
    parser.add_argument("name", help="of the registered model")
    parser.add_argument("--version", help="default: the challenger")
    parser.add_argument("--data", required=True, help="a source or a folder; its val decides")
    parser.add_argument("--prompt", default="j20")
    told = "images that it takes (default: 30); below 5 none is promoted"
    parser.add_argument("--fewest", type=int, default=FEWEST, help=told)
    parser.add_argument("--drop-seen", action="store_true", help="leave images out that one of the two has seen")
    parser.add_argument("--once", action="store_true", help="judged on this data before: give that verdict again")
    options = vars(parser.parse_args())
    try:
        dataset = load_data(options.pop("data"), train_limit=0, dev_limit=0)
        verdict = judge(MlflowClient(tracking_uri()), dataset=dataset, **options)
    except (MedsamError, MlflowException) as error:
        parser.exit(2, f"{parser.prog}: {one_line(error)}\n")
    print(verdict, verdict.as_json(), sep="\n")


if __name__ == "__main__":
    main()
