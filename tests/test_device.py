"""Devices and precisions; the allocator keeps freed memory where it is asked to."""

import platform
import subprocess
import sys

import pytest
import torch

from medsam_helpers.device import default_device, effective_precision, has_fast_bf16, peak_mb, restart_peak
from medsam_helpers.errors import ConfigError

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


def test_the_precision_that_is_used_is_told():
    cpu = torch.device("cpu")
    with pytest.warns(UserWarning, match="fp16 needs CUDA; on cpu this runs in fp32"):
        assert effective_precision("fp16", cpu) == "fp32"
    assert effective_precision("bf16", cpu) == "bf16"
    assert effective_precision("auto", cpu) == ("bf16" if has_fast_bf16(cpu) else "fp32")
    with pytest.raises(ConfigError, match="precision 'int8' is unknown: use auto, fp32, bf16, fp16"):
        effective_precision("int8", cpu)
    assert not has_fast_bf16(torch.device("mps"))
    assert default_device().type in ("cpu", "cuda", "mps")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says it")
def test_the_peak_counts_what_was_held_since_it_was_restarted():
    restart_peak()
    before = peak_mb()
    torch.ones(64_000_000)
    assert peak_mb() > before + 200
