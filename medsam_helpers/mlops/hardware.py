"""Processor, memory and GPU during a run, as metrics: of the machine, by MLflow's monitors, and of each process."""

import contextlib
from collections.abc import Iterator

import psutil
import torch
from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor


def hardware_samples(number: int, number_on_machine: int = 0) -> Iterator[dict[str, float]]:
    """Metrics `system/...`, one dictionary each time that the iterator is asked; its first has no load to compare with.

    Each process measures itself, `system/process_N_...` (percent of one core, megabytes), and the first of each machine
    that: `system/...` is process 0's machine, `system/process_N_machine_...` another.
    """
    own, process = f"system/process_{number}", psutil.Process()
    machine = f"{own}_machine_" if number else "system/"
    monitors: list[BaseMetricsMonitor] = [] if number_on_machine else [CPUMonitor()]
    if monitors:
        with contextlib.suppress(RuntimeError, ImportError):  # no GPU, or no driver
            monitors.append(GPUMonitor())
    while True:
        values = {f"{own}_cpu_utilization_percentage": process.cpu_percent()}
        values[f"{own}_memory_usage_megabytes"] = process.memory_info().rss / 1e6
        if torch.cuda.is_initialized():
            values[f"{own}_gpu_memory_megabytes"] = torch.cuda.memory_reserved() / 1e6
        for monitor in monitors:
            monitor.collect_metrics()
            values |= {f"{machine}{name}": value for name, value in monitor.aggregate_metrics().items()}
            monitor.clear_metrics()
        yield values
