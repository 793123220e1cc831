"""Processor, memory and GPU during a run, as metrics: of the machine, by MLflow's monitors, and of each process."""

import contextlib
import threading
import time

import psutil
import torch
from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

from medsam_helpers.mlops.journal import Journal


class HardwareMonitor(threading.Thread):
    """Writes `system/...` metrics to a journal every `interval_s` seconds and when it is stopped.

    Each process of a distributed run measures itself (percent of one core, megabytes), process 0 the machine too.
    """

    def __init__(self, journal: Journal, process_number: int, interval_s: float) -> None:
        super().__init__(daemon=True)
        self._journal, self._interval, self._stopped = journal, interval_s, threading.Event()
        self._own, self._process = f"system/process_{process_number}", psutil.Process()
        self._process.cpu_percent()  # measured from the call before
        self._monitors: list[BaseMetricsMonitor] = []
        if process_number == 0:
            self._monitors.append(CPUMonitor())
            with contextlib.suppress(RuntimeError, ImportError):  # no GPU, or no driver
                self._monitors.append(GPUMonitor())

    def run(self) -> None:
        started, more = time.monotonic(), True
        while more:
            more = not self._stopped.wait(self._interval)
            values = {f"{self._own}_cpu_utilization_percentage": self._process.cpu_percent()}
            values[f"{self._own}_memory_usage_megabytes"] = self._process.memory_info().rss / 1e6
            if torch.cuda.is_initialized():
                values[f"{self._own}_gpu_memory_megabytes"] = torch.cuda.memory_reserved() / 1e6
            for monitor in self._monitors:
                monitor.collect_metrics()
                values |= {f"system/{name}": value for name, value in monitor.aggregate_metrics().items()}
                monitor.clear_metrics()
            self._journal.write("metrics", values=values, step=round(time.monotonic() - started))

    def stop(self) -> None:
        """Write the last sample and end."""
        self._stopped.set()
        self.join()
