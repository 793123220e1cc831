"""The cache folder, and files that are either whole or not there: written beside their place, then renamed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from medsam_helpers.errors import ConfigError, some


def cache_dir() -> Path:
    """Folder for checkpoints, embeddings, phantoms and runs: `MEDSAM_CACHE`, else the user's cache folder."""
    return Path(os.environ.get("MEDSAM_CACHE") or platformdirs.user_cache_dir("medsam")).expanduser()


RELEASED = Path(__file__).parents[1] / "checkpoints"
"""Decoders that come with the source checkout, a folder each; an installed package has none."""


def find_checkpoint(name_or_path: str | Path) -> Path:
    """The folder of a released decoder where only its name is given and no such path exists; else the path as is."""
    path = Path(name_or_path).expanduser()
    bare = len(path.parts) == 1 and not path.exists()
    return RELEASED / path if bare and (RELEASED / path).is_dir() else path


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """A temporary path of the same suffix; what is written there takes `path`'s place when the block ends.

    After an error or an interrupt the old file is as it was, and nothing else stays. Missing parent folders are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        yield temporary
        give_ordinary_permissions(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def give_ordinary_permissions(path: Path) -> None:
    """Give a file the permissions of any new file: some writers (safetensors) make theirs for their owner alone."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)


def check_output_dir(folder: Path, mark: str, never: str = "") -> None:
    """Check that a folder is new, empty, or holds earlier results of the same kind; hidden files do not count.

    Args:
        folder: it is not made here.
        mark: the file by which earlier results are known.
        never: a file whose presence says that the folder is something else's.
    Raises:
        ConfigError: it holds something else, or cannot be written to.
    """
    check_writable(folder)
    found = sorted(path.name for path in folder.iterdir() if path.name[0] != ".") if folder.exists() else []
    if found and (mark not in found or never in found):
        shown = some(found)
        raise ConfigError(f"{folder} holds other files ({shown}), which might be overwritten: name a new folder")


def check_writable(folder: Path) -> None:
    """Check that a folder can be written to, or made; `ConfigError` if it, or its place, is a file or read-only."""
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not place.is_dir():
        raise ConfigError(f"{folder} cannot be a folder: {place} is a file")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ConfigError(f"{folder} cannot be written: no permission for {place}")
