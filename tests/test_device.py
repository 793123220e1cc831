"""Devices and precisions; the allocator keeps freed memory where it is asked to."""

import platform

import pytest
import torch
from helpers import python

from medsam_helpers import device
from medsam_helpers.device import default_device, effective_precision, has_fast_bf16

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))
# Page faults of 20 times 64 MB touched and freed: about 16,000 each time when pages are given back, once when kept.
PROBE = """
import resource, torch
from medsam_helpers.runs.card import own_memory_mb
from medsam_helpers.runs.embed import keep_freed_memory
print(keep_freed_memory())
before = own_memory_mb()
for _ in range(20):
    torch.ones(16_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt, own_memory_mb() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_freed_memory_is_kept_unless_told_not_to_and_what_is_held_is_told(monkeypatch):
    def probe(setting):
        monkeypatch.setenv("MEDSAM_KEEP_MEMORY", setting)
        return python(PROBE).split()

    (kept, few, held), (left, many, given_back) = probe("1"), probe("0")
    assert (kept, left) == ("True", "False")
    assert int(many) > int(few) + 100_000, "page faults"
    assert 60 < int(held) < 600, "64 MB at a time, which it keeps, in more than one place"
    assert int(given_back) < 20


def test_bf16_is_fast_where_it_multiplies_faster_whatever_the_list_of_abilities_says(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    for bf16_seconds, pays in ((0.5, True), (0.9, False)):
        times = {torch.float32: 1.0, torch.bfloat16: bf16_seconds}
        monkeypatch.setattr(device, "_seconds_to_multiply", times.get)
        assert has_fast_bf16.__wrapped__(CPU) == pays
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert not has_fast_bf16.__wrapped__(CPU), "a torch that cannot be asked"


def test_auto_takes_bf16_where_it_is_fast_and_what_is_asked_for_stays(monkeypatch):
    assert effective_precision("auto", CPU) == ("bf16" if has_fast_bf16(CPU) else "fp32")
    assert effective_precision("auto", MPS) == "fp32"
    for name, where in (("fp32", CPU), ("bf16", CPU), ("fp16", CUDA)):
        assert effective_precision(name, where) == name
    with pytest.warns(UserWarning, match="fp16 needs CUDA; on mps this runs in fp32"):
        assert effective_precision("fp16", MPS) == "fp32"
    monkeypatch.setattr(device, "has_fast_bf16", lambda _: False)
    with pytest.warns(UserWarning, match="no bfloat16: computing in float32; precision fp16 is quicker"):
        assert effective_precision("auto", CUDA) == "fp32"


def test_each_of_several_processes_has_a_gpu_of_its_own_unless_the_cpu_is_asked_for(monkeypatch):
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert default_device().type == best
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert default_device() == torch.device("cuda", 3)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert default_device() == CPU
