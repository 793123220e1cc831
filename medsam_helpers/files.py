"""The cache folder, and files that are either whole or not there: written beside their place, then renamed."""

import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import ParamSpec, TypeVar

import platformdirs
from filelock import FileLock, Timeout

from medsam_helpers.errors import ConfigError, some

P = ParamSpec("P")
R = TypeVar("R")
_PART = ".part"


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
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{_PART}{path.suffix}")
    try:
        yield temporary
        give_ordinary_permissions(temporary)
        os.replace(temporary, path)
    except Exception as error:  # of any library: safetensors has its own
        if "No space left" in str(error):
            free = shutil.disk_usage(path.parent).free / 1e6
            raise OSError(f"no room for {path}: {free:.0f} MB are left; make room, and call again") from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder that becomes `path` when the block ends, and goes after an error; `ConfigError`: something is there."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(f"{path} is not an empty folder: name a new one, so that nothing is overwritten")
    aside = path.with_name(f".{path.name}{_PART}")
    shutil.rmtree(aside, ignore_errors=True)  # of one that was killed
    aside.mkdir(parents=True)
    try:
        yield aside
        aside.replace(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def remove_leftovers(folder: Path, pattern: str, older_s: float = 0) -> None:
    """Remove what killed writers left half-written; `older_s`: not what may be a living one's."""
    for left in folder.glob(pattern):
        if left.name[0] == "." and _PART in left.name and time.time() - left.stat().st_mtime > older_s:
            left.unlink(missing_ok=True)


def one_writer(function: Callable[P, R]) -> Callable[P, R]:
    """The function, of which one call at a time writes to its argument `output`, a path; a killed one leaves no lock.

    What killed ones left half-written in that folder is removed first.
    """

    @wraps(function)
    def alone(*args: P.args, **options: P.kwargs) -> R:
        bound = signature(function).bind(*args, **options)
        bound.arguments["output"] = output = Path(bound.arguments["output"])
        if os.environ.get("RANK", "0") != "0":  # of several processes of one run the first writes
            return function(*bound.args, **bound.kwargs)
        check_writable(output)
        output.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(output.with_name(f".{output.name}.lock"), timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise ConfigError(f"{output}: another process writes there: wait for it, or name a new folder") from None
        try:
            remove_leftovers(output, "*")
            return function(*bound.args, **bound.kwargs)
        finally:
            Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()

    return alone


def give_ordinary_permissions(path: Path) -> None:
    """Give a file the permissions of any new file: some writers (safetensors) make theirs for their owner alone."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)


def check_output_dir(folder: Path, mark: str, never: str = "") -> None:
    """Raise `ConfigError` where a folder cannot be written to, or holds something else than earlier results.

    These are known by the file `mark`; a file `never` says that they are of another kind. Hidden files do not count.
    """
    check_writable(folder)
    found = sorted(path.name for path in folder.iterdir() if path.name[0] != ".") if folder.exists() else []
    if found and (mark not in found or never in found):
        raise ConfigError(f"{folder} holds other files ({some(found)}), which might be overwritten: name a new folder")


def check_writable(folder: Path) -> None:
    """Check that a folder can be written to, or made; `ConfigError` if it, or its place, is a file or read-only."""
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not place.is_dir():
        raise ConfigError(f"{folder} cannot be a folder: {place} is a file")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ConfigError(f"{folder} cannot be written: no permission for {place}")
