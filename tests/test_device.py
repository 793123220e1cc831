"""The allocator setting: taken where it exists, left alone on request, and it really keeps freed memory."""

import platform
import subprocess
import sys

import pytest

GLIBC = platform.libc_ver()[0] == "glibc"
# Page faults of 20 times 64 MB touched and freed: about 16,000 each time when pages are given back, once when kept.
PROBE = """
import resource, torch
from medsam_helpers.device import keep_freed_memory
print(keep_freed_memory())
for _ in range(20):
    torch.ones(16_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


def probe(setting):
    environment = {"MEDSAM_KEEP_MEMORY": setting, "PATH": ""}
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True, env=environment)
    said, faults = done.stdout.split()
    return said, int(faults)


@pytest.mark.skipif(not GLIBC, reason="only glibc has these settings")
def test_freed_memory_is_kept_unless_told_not_to():
    kept, with_few_faults = probe("1")
    left, with_many_faults = probe("0")
    assert (kept, left) == ("True", "False")
    assert with_many_faults > with_few_faults + 100_000
