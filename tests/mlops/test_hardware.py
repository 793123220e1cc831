"""The machine is told of while a run goes on: each process by itself, GPUs by their index."""

import pynvml

from medsam_helpers.mlops.hardware import HardwareMonitor
from medsam_helpers.mlops.journal import Journal, read_records


def sampled(folder, number):
    """Metrics of a monitor that is stopped at once: its last sample is taken at the stop."""
    monitor = HardwareMonitor(Journal(folder, number), number, interval_s=600)
    monitor.start()
    sum(range(1_000_000))
    monitor.stop()
    ((record, _),) = read_records(folder / f"journal-{number}.jsonl")
    return record["values"]


def test_process_0_tells_of_the_machine_and_each_process_of_itself(tmp_path):
    first, other = sampled(tmp_path, 0), sampled(tmp_path, 3)
    assert other.keys() == {"system/process_3_cpu_utilization_percentage", "system/process_3_memory_usage_megabytes"}
    assert other["system/process_3_cpu_utilization_percentage"] > 0
    assert 50 < other["system/process_3_memory_usage_megabytes"] < 50_000
    machine = {"cpu_utilization_percentage", "system_memory_usage_megabytes", "system_memory_usage_percentage"}
    assert {f"system/{name}" for name in machine} <= first.keys()


def test_gpus_are_those_of_the_driver(tmp_path):
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError:
        count = 0
    told = {name.split("_")[1] for name in sampled(tmp_path, 0) if name.startswith("system/gpu_")}
    assert told == {str(index) for index in range(count)}
