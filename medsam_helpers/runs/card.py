"""The run card: what was run, on what, from which code, how long, with what result."""

import json
import os
import platform
import re
import shlex
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch

from medsam_helpers.files import write_text

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
    """The content of a run card that is now written to `path` as JSON.

    Args:
        command: the command line; absolute and home paths are cut to their last two parts, since cards are shared.
        data_digest: SHA-256 of the data that was used.
        commit: `git_commit()` when the run began: code may change while it runs. Default: now's.
        figures: what else the card holds, such as recipe, sizes, results: anything that JSON can hold.
    """
    words = shlex.split(command) if isinstance(command, str) else map(str, command)
    card = {
        "command": shlex.join(map(_public_word, words)),
        "commit": commit or git_commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "data_digest": data_digest,
        "seconds": round(seconds, 1),
        "machine": machine(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES},
        **figures,
    }
    write_text(path, json.dumps(card, indent=2, ensure_ascii=False) + "\n")
    return card


def git_commit(folder: str | Path = Path(__file__).parent) -> str:
    """Commit of the code in `folder`, with "+dirty" after changes of tracked files; "unknown" where git tracks none.

    Changes under `notebooks/` do not count: runs write their results there.
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
    cpu, described = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if described.exists():  # `platform.processor()` is empty on most Linux machines
        found = re.search(r"^model name\s*:\s*(.+)$", described.read_text(errors="replace"), re.MULTILINE)
        cpu = found.group(1).strip() if found else cpu
    cuda = {"cuda_device": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return {"cpu": cpu, "cores": os.cpu_count(), "torch_threads": torch.get_num_threads()} | cuda


def own_memory_mb() -> int | None:
    """Megabytes of its own that this process holds (on Linux), freed blocks that it keeps too.

    So with `embed.keep_freed_memory` the most it ever held. Mapped files do not count, since the system may drop them.
    """
    with suppress(OSError):
        if found := re.search(r"RssAnon:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8")):
            return round(int(found.group(1)) * 1024 / 1e6)
    return None


def _public_word(word: str) -> str:
    """`word` with its path, if it is one or ends in one after `=`, cut to the last two parts."""
    option, equals, value = word.rpartition("=")
    for kind in (PurePosixPath, PureWindowsPath):
        path = kind(value)
        if path.is_absolute() or value.startswith("~"):
            return option + equals + "/".join([part for part in path.parts if part not in (path.anchor, "~")][-2:])
    return word
