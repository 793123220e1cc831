"""Tell the C library to keep the memory that torch frees: on a Linux CPU an encoding takes half the time."""

from __future__ import annotations

import ctypes
import os
import re
from contextlib import suppress
from functools import cache
from pathlib import Path

# Of malloc.h: how much free memory at the heap's end is given back, how much more than asked for is taken at a time,
# and how many requests may get pages of their own.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


@cache
def keep_freed_memory() -> bool:
    """Let the process keep large freed blocks for the next request, from now on; True where that was set.

    By default glibc gives each large block back to the system as soon as it is freed, and the next layer's result pays
    for fresh pages, zeroed one by one. The peak stays what it is; the process holds on to it until it ends.
    `MEDSAM_KEEP_MEMORY=0` leaves the allocator as it is. Does nothing where there is no glibc.
    """
    if os.environ.get("MEDSAM_KEEP_MEMORY") == "0" or os.name != "posix":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # macOS, musl
        return False
    settings = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 64 << 20}
    return all(mallopt(option, value) == 1 for option, value in settings.items())


def restart_peak() -> None:
    """Let `peak_mb` count from now on, where the system can do that (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_mb() -> int | None:
    """The most memory that this process has held since `restart_peak`, in MB; None where the system does not say.

    Memory that `keep_freed_memory` keeps counts, so a later run of the same process starts from what an earlier held.
    """
    try:
        found = re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return None
    return round(int(found.group(1)) * 1024 / 1e6) if found else None
