"""The registry: models with their card, one of their versions the `challenger`, one the `champion`."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from medsam_helpers.errors import ConfigError, MedsamError
from medsam_helpers.sam.checkpoints import sha256_of
from medsam_helpers.sam.segmenter import Segmenter
from medsam_helpers.sam.tuned import CARD_FILE, DECODER_FILE, SEEN_FILE, base_of, read_card

CHALLENGER, CHAMPION, CHECKPOINT = "challenger", "champion", "checkpoint"
CHECKPOINT_FILES = (DECODER_FILE, CARD_FILE, SEEN_FILE, "README.md")
_DIGEST = "medsam.decoder_sha256"  # tag of a version


class RegistryError(MedsamError):
    """The registry cannot do this, or somebody else was quicker."""


def check_model_name(name: str) -> str:
    """The name, which is also safe in a command or an address; `ConfigError` if it is none."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", name):
        allowed = "up to 100 letters, digits and . _ - of ASCII, the first one no . or -"
        raise ConfigError(f"{name[:100]!r} is no name for a registered model: take {allowed}")
    return name


def register(client: MlflowClient, name: str, run_id: str, folder: Path) -> ModelVersion:
    """A new version of a model, made where missing, the challenger from now on.

    The run has the checkpoint as its artifact `checkpoint`, else it is a `RegistryError`. It lies in `folder` too: card
    and README there describe the version, the decoder's digest is what may be loaded.
    """
    check_model_name(name)
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

    `RegistryError`: its decoder is not the one that was registered.
    """
    with checkpoint_of(client, name, alias_or_version) as folder:
        precision = read_card(folder).get("precision", "auto")
        return Segmenter.load(base_of(folder) if zero_shot else folder, precision=precision)


@contextmanager
def checkpoint_of(client: MlflowClient, name: str, alias_or_version: str) -> Iterator[Path]:
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
