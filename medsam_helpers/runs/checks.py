"""What can be found out before the work begins: a mistyped name, a folder that is not for writing to."""

from __future__ import annotations

import os
from pathlib import Path

from medsam_helpers.data.sources import SOURCES
from medsam_helpers.errors import CheckpointError, ConfigError
from medsam_helpers.sam.checkpoints import NAMES


def check_names(model: str | None = None, checkpoint: Path | None = None, data: str | None = None) -> None:
    """Find a mistyped model, checkpoint or data source before libraries take seconds to load.

    Raises:
        ConfigError: no model or no data source of that name, and no such path.
        CheckpointError: no such folder, or no run card in it.
    """
    if model is not None and model not in NAMES and not Path(model).expanduser().exists():
        raise ConfigError(f"no model {model!r}: use {', '.join(NAMES)}, or a path that exists")
    if checkpoint is not None and not (checkpoint / "run_card.json").is_file():
        lacks = "holds no run_card.json" if checkpoint.is_dir() else "is no folder that exists"
        raise CheckpointError(f"checkpoint {checkpoint} {lacks}: pass one that `medsam finetune --output` wrote")
    if data is not None and data not in SOURCES and not Path(data).expanduser().is_dir():
        raise ConfigError(f"no data source {data!r}: use {', '.join(SOURCES)}, or a folder that exists")


def check_output_dir(folder: Path, mark: str, never: str = "") -> None:
    """Let a folder pass that is new, empty, or holds earlier results of the same kind; hidden files do not count.

    Args:
        folder: where the results shall go. It is not made here.
        mark: the file by which earlier results are known.
        never: a file whose presence says that the folder is something else's.
    Raises:
        ConfigError: it holds something else, or cannot be written to.
    """
    check_writable(folder)
    found = sorted(path.name for path in folder.iterdir() if path.name[0] != ".") if folder.exists() else []
    if found and (mark not in found or never in found):
        shown = ", ".join(found[:3]) + ", ..." * (len(found) > 3)
        raise ConfigError(f"{folder} holds other files ({shown}), which might be overwritten: name a new folder")


def check_writable(folder: Path) -> None:
    """Let a folder pass that can be written to, or made.

    Raises:
        ConfigError: it, or what it would lie in, is a file or read-only.
    """
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not place.is_dir():
        raise ConfigError(f"{folder} cannot be a folder: {place} is a file")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ConfigError(f"{folder} cannot be written: no permission for {place}")
