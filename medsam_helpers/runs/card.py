"""The run card: what was run, on what, from which code, how long, with what result."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch

from medsam_helpers.files import atomic_write

_PACKAGES = ("torch", "transformers", "monai", "accelerate", "numpy")


def write_run_card(
    path: str | Path,
    *,
    command: str | Sequence[str],
    data_digest: str,
    seconds: float,
    commit: str | None = None,
    **figures: Any,
) -> dict[str, Any]:
    """Writes a run card as JSON, atomically, and gives its content back.

    Args:
        path: where the card goes.
        command: the command line; absolute and home paths in it are cut to their last two parts, so that a card
            that is shared does not tell of somebody's folders.
        data_digest: SHA-256 of the data that was used.
        seconds: duration of the run.
        commit: `git_commit()` when the run began: code may change while it runs. Default: now's.
        figures: what else the card holds: recipe, sizes, results. Anything that JSON can hold.
    """
    card = {
        "command": _public_command(command),
        "commit": commit or git_commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "data_digest": data_digest,
        "seconds": round(seconds, 1),
        "machine": machine(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
        **figures,
    }
    text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return card


def git_commit(folder: str | Path = Path(__file__).parent) -> str:
    """Commit of the code in `folder`, with "+dirty" where tracked files were changed since; "unknown" without git.

    Changes under `notebooks/` do not count: runs write their results there. A folder that merely lies inside
    somebody's repository (an installed package, say) is "unknown" too.
    """

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        if not git("ls-files", "."):
            return "unknown"
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)notebooks")
        return git("rev-parse", "HEAD") + ("+dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def machine() -> dict[str, Any]:
    """Processor, cores, torch threads and, where there is one, the CUDA device. No host name."""
    found = {"cpu": _cpu_model(), "cores": os.cpu_count(), "torch_threads": torch.get_num_threads()}
    if torch.cuda.is_available():
        found["cuda_device"] = torch.cuda.get_device_name()
    return found


def _cpu_model() -> str:
    try:  # `platform.processor()` is empty on most Linux machines
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        found = re.search(r"^model name\s*:\s*(.+)$", lines, re.MULTILINE)
    except OSError:
        found = None
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _public_command(command: str | Sequence[str]) -> str:
    words = shlex.split(command) if isinstance(command, str) else [str(word) for word in command]
    return shlex.join(_public_word(word) for word in words)


def _public_word(word: str) -> str:
    """`word` with its path, if it is one or ends in one after `=`, cut to the last two parts."""
    option, equals, value = word.rpartition("=")
    for kind in (PurePosixPath, PureWindowsPath):
        path = kind(value)
        if path.is_absolute() or value.startswith("~"):
            return option + equals + "/".join([part for part in path.parts if part not in (path.anchor, "~")][-2:])
    return word
