"""What a run does to the machine: processor, memory and GPU, sampled by a thread in each process.

The names begin with `system/`, so that MLflow shows them under "System metrics".
The GPU part asks NVIDIA's management library; it was not seen on a GPU yet.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import psutil
import pynvml


class HardwareMonitor:
    """Samples until it is stopped.

    Args:
        record: called with {name: value} and the seconds since the start.
        process_number: of this process in a distributed run; part of the names of what is its own.
        interval_s: between two samples.
    """

    def __init__(self, record: Callable[[dict[str, float], int], None], process_number: int, interval_s: float) -> None:
        self._record, self._number, self._interval = record, process_number, interval_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hardware monitor", daemon=True)

    def start(self) -> None:
        """Begin to sample."""
        self._thread.start()

    def stop(self) -> None:
        """Take a last sample and end."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        process, gpus, started = psutil.Process(), gpu_handles(), time.monotonic()
        sample(process, gpus, self._number)  # a share of the processor is measured from the call before
        more = True
        while more:
            more = not self._stopped.wait(self._interval)
            self._record(sample(process, gpus, self._number), round(time.monotonic() - started))


def sample(process: psutil.Process, gpus: list, process_number: int = 0) -> dict[str, float]:
    """One sample: this process's own share, the machine's, and every GPU's.

    Args:
        process: whose share is asked for; since the sample before.
        gpus: of `gpu_handles`.
        process_number: part of the names of the process's own values.
    Returns:
        Processor in percent of one core (process) and of all (machine); memory in megabytes; power in watts.
    """
    own, memory = f"system/process_{process_number}", psutil.virtual_memory()
    values = {
        f"{own}_cpu_utilization_percentage": process.cpu_percent(),
        f"{own}_memory_usage_megabytes": process.memory_info().rss / 1e6,
    }
    if process_number == 0:  # the same for all processes of a machine
        values["system/cpu_utilization_percentage"] = psutil.cpu_percent()
        values["system/system_memory_usage_megabytes"] = memory.used / 1e6
        values["system/system_memory_usage_percentage"] = memory.percent
        for index, gpu in enumerate(gpus):
            values |= {f"system/gpu_{index}_{name}": value for name, value in gpu_sample(gpu, process.pid).items()}
    return values


def gpu_handles() -> list:
    """The GPUs that NVIDIA's library knows; an empty list without one, or without its driver."""
    try:
        pynvml.nvmlInit()
        return [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []


def gpu_sample(gpu: object, pid: int) -> dict[str, float]:
    """Utilisation, memory and power of a GPU, and the memory that one process holds there; what it cannot tell lacks.

    Args:
        gpu: a handle of `gpu_handles`.
        pid: of the process.
    """
    asked = {
        "utilization_percentage": lambda: pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu,
        "memory_usage_megabytes": lambda: pynvml.nvmlDeviceGetMemoryInfo(gpu).used / 1e6,
        "power_usage_watts": lambda: pynvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
        "process_memory_megabytes": lambda: sum(
            (held.usedGpuMemory or 0) / 1e6
            for held in pynvml.nvmlDeviceGetComputeRunningProcesses(gpu)
            if held.pid == pid
        ),
    }
    values = {}
    for name, ask in asked.items():
        try:
            values[name] = float(ask())
        except pynvml.NVMLError:  # not every card has every sensor
            continue
    return values
