"""The registry: models with their card, `challenger` and `champion`, and the gate between the two."""

import argparse
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from medsam_helpers.data.case import Dataset
from medsam_helpers.data.loading import load_data
from medsam_helpers.errors import DataError, MedsamError
from medsam_helpers.evaluation.evaluate import evaluate
from medsam_helpers.evaluation.intervals import Interval
from medsam_helpers.evaluation.tables import paired_gain
from medsam_helpers.mlops.lineage import CASES_FILE
from medsam_helpers.mlops.server import tracking_uri
from medsam_helpers.runs.finetune import embed_cases
from medsam_helpers.sam.embeddings import EmbeddingStore
from medsam_helpers.sam.loading import load_sam
from medsam_helpers.sam.segmenter import Segmenter
from medsam_helpers.sam.tuned import CARD_FILE, DECODER_FILE, load_checkpoint, read_card

CHALLENGER, CHAMPION, CHECKPOINT = "challenger", "champion", "checkpoint"
CHECKPOINT_FILES = (DECODER_FILE, CARD_FILE, "README.md")


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

    def __str__(self) -> str:
        other = f"version {self.other}" if self.other != "zero-shot" else self.other
        found = f"{self.gain} against {other} on {self.n} images: {'not ' * (not self.promoted)}promoted"
        return f"{self.name} version {self.version}: {found}"

    def as_json(self) -> str:
        """All of it as a JSON object; an interval of too few images is null."""
        return json.dumps(asdict(self) | {"gain": self.gain.for_json()})


def register(client: MlflowClient, name: str, run_id: str, folder: Path) -> ModelVersion:
    """A new version of a model, the challenger from now on; `RegistryError` if the run has logged no checkpoint.

    Args:
        name: of the model, made where missing.
        run_id: of the run, with the checkpoint as its artifact `checkpoint`.
        folder: of the checkpoint here; its card and README describe the version.
    """
    if DECODER_FILE not in {Path(file.path).name for file in client.list_artifacts(run_id, CHECKPOINT)}:
        raise RegistryError(f"run {run_id} has no {CHECKPOINT}/{DECODER_FILE}: log the checkpoint's folder first")
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    card, text = read_card(folder), (folder / "README.md").read_text(encoding="utf-8")
    tags = {str(key): str(card[key]) for key in ("base", "base_digest", "data_digest", "commit") if key in card}
    source = f"runs:/{run_id}/{CHECKPOINT}"
    # The files are there already: MLflow need not wait for them, nor say that it does.
    version = client.create_model_version(name, source, run_id, tags, description=text, await_creation_for=0)
    client.set_registered_model_alias(name, CHALLENGER, version.version)
    return version


def load_model(
    client: MlflowClient, name: str, alias_or_version: str = CHAMPION, *, zero_shot: bool = False
) -> Segmenter:
    """A model of the registry (`MlflowException` if there is none such); `zero_shot`: its untrained base."""
    find = client.get_model_version if alias_or_version.isdigit() else client.get_model_version_by_alias
    with tempfile.TemporaryDirectory() as folder:
        path = Path(client.download_artifacts(str(find(name, alias_or_version).run_id), CHECKPOINT, folder))
        card = read_card(path)
        model = load_sam(card.get("base_path") or card["base"], show_progress=False)
        if not zero_shot:
            load_checkpoint(path, model)
    return Segmenter(model, precision=card.get("precision", "auto"))


def version_of(client: MlflowClient, name: str, alias: str) -> str | None:
    """The version that has this alias; None where none has."""
    return client.get_registered_model(name).aliases.get(alias)


def judge(
    client: MlflowClient, name: str, dataset: Dataset, prompt: str = "j20", version: str | None = None
) -> Verdict:
    """The verdict on a challenger against the champion (or the zero-shot base) on val; promotes it if it is better.

    Better: the 95 % interval (Student's t) of the paired difference in Dice lies above zero, on images new to both.

    Args:
        dataset: whose val decides.
        prompt: of the comparison, "exact" or "jN".
        version: which is judged; default: the challenger.
    Raises:
        RegistryError: there is no challenger, it is the champion already, or the champion changed meanwhile.
        DataError: an image of val was trained on or selected on.
    """
    version = version or version_of(client, name, CHALLENGER)
    champion = version_of(client, name, CHAMPION)
    if version is None:
        raise RegistryError(f"{name} has no {CHALLENGER}: register a run first")
    if version == champion:
        raise RegistryError(f"{name} version {version} is the {CHAMPION} already")
    for known in filter(None, (version, champion)):
        _check_new_images(client, name, known, dataset)
    models = {}
    for role, number in ((CHALLENGER, version), (CHAMPION, champion)):
        segmenter = load_model(client, name, number or version, zero_shot=number is None)
        segmenter.store = EmbeddingStore.for_model(segmenter.info, segmenter.precision)  # one base: encoded once
        embed_cases(segmenter, dataset.val, show_progress=False)
        models[role] = segmenter.predict_case
    table = evaluate(dataset.val, models, prompts=[prompt], show_progress=False)
    gain = paired_gain(table, prompt, CHALLENGER, CHAMPION)
    better, n = bool(gain.low > 0), table["case"].nunique()
    verdict = Verdict(name, version, champion or "zero-shot", prompt, n, gain, promoted=better)
    client.set_model_version_tag(name, version, "medsam.gate", verdict.as_json())
    if better:
        if version_of(client, name, CHAMPION) != champion:
            raise RegistryError(f"{name}: the {CHAMPION} changed while version {version} was judged; judge it again")
        client.set_registered_model_alias(name, CHAMPION, version)
    return verdict


def _check_new_images(client: MlflowClient, name: str, version: str, dataset: Dataset) -> None:
    run_id = str(client.get_model_version(name, version).run_id)
    with tempfile.TemporaryDirectory() as folder:
        known = json.loads(Path(client.download_artifacts(run_id, CASES_FILE, folder)).read_text())
    seen = {digest for split in ("train", "dev") for digest in known[split].values()}
    if shared := [case.name for case in dataset.val if case.image_digest in seen]:
        some = f"{len(shared)} of these images ({', '.join(shared[:3])}{', ...' * (len(shared) > 3)})"
        raise DataError(f"{name} version {version} was trained or selected on {some}: judge it on images new to it")


def main() -> None:
    """The gate as a command, for the workflow; its last line is the verdict as JSON."""
    parser = argparse.ArgumentParser(description="Judge a challenger on images that it was not selected on.")
    parser.add_argument("name", help="of the registered model")
    parser.add_argument("--version", help="default: the challenger")
    parser.add_argument("--data", required=True, help="a source or a folder; its val decides")
    parser.add_argument("--prompt", default="j20")
    args = parser.parse_args()
    dataset = load_data(args.data, train_limit=0, dev_limit=0)
    verdict = judge(MlflowClient(tracking_uri()), args.name, dataset, args.prompt, args.version)
    print(verdict, verdict.as_json(), sep="\n")


if __name__ == "__main__":
    main()
