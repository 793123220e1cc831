"""The registry: models with their card, `challenger` and `champion`, and the gate between the two."""

import argparse
import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from medsam_helpers.data.case import Cases, Dataset
from medsam_helpers.data.loading import load_data
from medsam_helpers.errors import DataError, MedsamError, some
from medsam_helpers.evaluation.evaluate import evaluate
from medsam_helpers.evaluation.intervals import Interval
from medsam_helpers.evaluation.tables import paired_gain
from medsam_helpers.files import cache_dir
from medsam_helpers.mlops.server import tracking_uri
from medsam_helpers.runs.finetune import embed_cases
from medsam_helpers.runs.seen import SEEN_FILE, read_seen, seen_among
from medsam_helpers.sam.checkpoints import sha256_of
from medsam_helpers.sam.embeddings import EmbeddingStore
from medsam_helpers.sam.loading import load_sam
from medsam_helpers.sam.segmenter import Segmenter
from medsam_helpers.sam.tuned import CARD_FILE, DECODER_FILE, load_checkpoint, read_card

CHALLENGER, CHAMPION, CHECKPOINT = "challenger", "champion", "checkpoint"
CHECKPOINT_FILES = (DECODER_FILE, CARD_FILE, SEEN_FILE, "README.md")
FEWEST = 30
"""Different images that a promotion needs, unless it is said otherwise."""
_DIGEST, _VERDICT = "medsam.decoder_sha256", "medsam.verdict."  # tags of a version; verdicts are numbered
_LAST_CHAMPION = "medsam.champion"  # tag of a model: the version that was promoted last


class RegistryError(MedsamError):
    """The registry cannot do this, or somebody else was quicker."""


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
    data: str  # name and digest of the images
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


def register(client: MlflowClient, name: str, run_id: str, folder: Path) -> ModelVersion:
    """A new version of a model, the challenger from now on; `RegistryError` if the run has logged no checkpoint.

    Args:
        name: of the model, made where missing.
        run_id: of the run, with the checkpoint as its artifact `checkpoint`.
        folder: of the checkpoint here; its card and README describe the version, its digest is what may be loaded.
    """
    if DECODER_FILE not in {Path(file.path).name for file in client.list_artifacts(run_id, CHECKPOINT)}:
        raise RegistryError(f"run {run_id} has no {CHECKPOINT}/{DECODER_FILE}: log the checkpoint's folder first")
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    card, text = read_card(folder), (folder / "README.md").read_text(encoding="utf-8")
    tags = {str(key): str(card[key]) for key in ("base", "base_digest", "data_digest", "commit") if key in card}
    tags[_DIGEST] = sha256_of(folder / DECODER_FILE)
    source = f"runs:/{run_id}/{CHECKPOINT}"
    # The files are there already: MLflow need not wait for them, nor say that it does.
    version = client.create_model_version(name, source, run_id, tags, description=text, await_creation_for=0)
    client.set_registered_model_alias(name, CHALLENGER, version.version)
    return version


def version_of(client: MlflowClient, name: str, alias: str) -> str | None:
    """The version that has this alias; None where none has."""
    return client.get_registered_model(name).aliases.get(alias)


def load_model(
    client: MlflowClient, name: str, alias_or_version: str = CHAMPION, *, zero_shot: bool = False
) -> Segmenter:
    """A model of the registry (`MlflowException` if there is none such); `zero_shot`: its untrained base.

    Raises:
        RegistryError: its decoder is not the one that was registered.
    """
    with _checkpoint(client, name, alias_or_version) as folder:
        card = read_card(folder)
        model = load_sam(card.get("base_path") or card["base"], show_progress=False)
        if not zero_shot:
            load_checkpoint(folder, model)
    return Segmenter(model, precision=card.get("precision", "auto"))


@contextmanager
def _checkpoint(client: MlflowClient, name: str, alias_or_version: str) -> Iterator[Path]:
    """Inside the block: a folder with the checkpoint of a version, as it was registered."""
    if alias_or_version.isdecimal() and alias_or_version != str(int(alias_or_version)):
        raise RegistryError(f"{name}: no version {alias_or_version!r}: versions are written 1, 2, 3")
    find = client.get_model_version if alias_or_version.isdecimal() else client.get_model_version_by_alias
    version = find(name, alias_or_version)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(client.download_artifacts(str(version.run_id), CHECKPOINT, temporary))
        if sha256_of(folder / DECODER_FILE) != version.tags.get(_DIGEST):
            told = f"the decoder of version {version.version} in the store is not the one that was registered"
            raise RegistryError(f"{name}: {told}: do not use it; register its run's checkpoint again")
        yield folder


def judge(
    client: MlflowClient,
    name: str,
    dataset: Dataset,
    prompt: str = "j20",
    version: str | None = None,
    *,
    fewest: int = FEWEST,
    drop_seen: bool = False,
) -> Verdict:
    """The verdict on a challenger against the champion (or the zero-shot base) on val; promotes it if it is better.

    Better: the 95 % interval (Student's t) of the paired difference in Dice lies above zero, on images new to both.
    One judge at a time on this machine; one elsewhere that promotes meanwhile is noticed.

    Args:
        dataset: whose val decides. An image that is there twice counts once.
        prompt: of the comparison, "exact" or "jN".
        version: which is judged; default: the challenger.
        fewest: different images that it takes.
        drop_seen: leave images out that one of the two, or what it was trained from, has seen, in place of an error.
    Raises:
        RegistryError: there is no challenger, it is the champion already, the champion is missing or changed meanwhile.
        DataError: an image of val was trained on or selected on, or there are too few.
        CheckpointError: a version does not say what it was trained on.
    """
    place = cache_dir() / "locks" / hashlib.sha256(f"{client.tracking_uri} {name}".encode()).hexdigest()[:16]
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{place}.lock"):  # the system takes it from a judge that dies
        return _judge(client, name, dataset, prompt, version, fewest, drop_seen)


def _judge(
    client: MlflowClient, name: str, dataset: Dataset, prompt: str, version: str | None, fewest: int, drop_seen: bool
) -> Verdict:
    version = version or version_of(client, name, CHALLENGER)
    champion = _champion(client, name)
    if version is None:
        raise RegistryError(f"{name} has no {CHALLENGER}: register a run first")
    if version == champion:
        raise RegistryError(f"{name} version {version} is the {CHAMPION} already")
    cases = _different(dataset.val)
    seen: dict[str, str] = {}
    for known in filter(None, (version, champion)):
        with _checkpoint(client, name, known) as folder:
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
        segmenter = load_model(client, name, number or version, zero_shot=number is None)
        segmenter.store = EmbeddingStore.for_model(segmenter.info, segmenter.precision)  # one base: encoded once
        embed_cases(segmenter, cases, show_progress=False)
        models[role] = segmenter.predict_case
    table = evaluate(cases, models, prompts=[prompt], group_of=dataset.group_of, show_progress=False)
    gain = paired_gain(table, prompt, CHALLENGER, CHAMPION)
    before = [tag for tag in client.get_model_version(name, version).tags if tag.startswith(_VERDICT)]
    data, better, other = f"{dataset.name} {cases.digest[:16]}", bool(gain.low > 0), champion or "zero-shot"
    found = (len(cases), gain, better, data, len(seen), len(before) + 1)
    verdict = Verdict(name, version, other, prompt, *found)
    if better:
        if version_of(client, name, CHAMPION) != champion:
            raise RegistryError(f"{name}: the {CHAMPION} changed while version {version} was judged; judge it again")
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


def verdicts(client: MlflowClient, name: str, version: str) -> list[dict]:
    """Every verdict on a version as `Verdict.as_json` wrote it, the oldest first: how often it was judged, on what."""
    tags = client.get_model_version(name, version).tags
    numbers = sorted(int(tag.removeprefix(_VERDICT)) for tag in tags if tag.startswith(_VERDICT))
    return [json.loads(tags[f"{_VERDICT}{number}"]) for number in numbers]


def main() -> None:
    """The gate as a command, for the workflow; its last line is the verdict as JSON."""
    parser = argparse.ArgumentParser(description="Judge a challenger on images that it was not selected on.")
    parser.add_argument("name", help="of the registered model")
    parser.add_argument("--version", help="default: the challenger")
    parser.add_argument("--data", required=True, help="a source or a folder; its val decides")
    parser.add_argument("--prompt", default="j20")
    parser.add_argument("--fewest", type=int, default=FEWEST, help="different images that it takes (default: 30)")
    parser.add_argument("--drop-seen", action="store_true", help="leave images out that one of the two has seen")
    args = parser.parse_args()
    dataset = load_data(args.data, train_limit=0, dev_limit=0)
    options = {"fewest": args.fewest, "drop_seen": args.drop_seen}
    verdict = judge(MlflowClient(tracking_uri()), args.name, dataset, args.prompt, args.version, **options)
    print(verdict, verdict.as_json(), sep="\n")


if __name__ == "__main__":
    main()
