"""What the machine offers: a device, and the number format it is quick in."""

import os
import time
import timeit
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache

import torch

from medsam_helpers.errors import check_known

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def default_device() -> torch.device:
    """The CUDA device (of several processes each has its own), else Apple's MPS, else the CPU.

    `ACCELERATE_USE_CPU=1`, as accelerate has it, asks for the CPU.
    """
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes"):
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


@cache
def has_fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is quicker; a CPU is timed, since some have bfloat16 instructions slower than their float32."""
    if device.type != "cpu":
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    abilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # an older torch cannot be asked: no
    can = any(abilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return can and _seconds_to_multiply(torch.float32) > 1.3 * _seconds_to_multiply(torch.bfloat16)


def _seconds_to_multiply(dtype: torch.dtype) -> float:
    """Shortest processor time of several matrix products on one thread."""
    ones, threads = torch.ones(512, 512, dtype=dtype), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return min(timeit.repeat(lambda: ones @ ones, timer=time.thread_time, number=1, repeat=10))
    finally:
        torch.set_num_threads(threads)


def effective_precision(requested: str, device: torch.device) -> str:
    """The precision that will really be used: "fp32", "bf16" or "fp16"; `ConfigError` for an unknown name.

    "auto" is bf16 where that is fast. fp16 exists on CUDA only; elsewhere a warning says that it is fp32.
    """
    check_known("precision", requested, PRECISIONS)
    if requested == "auto":
        if device.type == "cuda" and not has_fast_bf16(device):
            warnings.warn("this GPU has no bfloat16: computing in float32; precision fp16 is quicker", stacklevel=2)
        return "bf16" if has_fast_bf16(device) else "fp32"
    if requested == "fp16" and device.type != "cuda":
        warnings.warn(f"fp16 needs CUDA; on {device.type} this runs in fp32", stacklevel=2)
        return "fp32"
    return requested


@contextmanager
def autocast(device: torch.device, precision: str) -> Iterator[None]:
    """A context in which matrix products and convolutions run in an effective precision.

    In fp32 also those that cuDNN by default does in TF32, which keeps 10 of 23 digits.
    """
    with torch.autocast(device.type, dtype=_DTYPES.get(precision), enabled=precision in _DTYPES), ExitStack() as stack:
        if device.type == "cuda":
            stack.enter_context(torch.backends.cudnn.flags(enabled=True, allow_tf32=precision != "fp32"))
        yield
