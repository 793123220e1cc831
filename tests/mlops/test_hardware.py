"""The machine is told of while a run goes on: each process by itself, GPUs by their index."""

import pynvml

from medsam_helpers.mlops.hardware import hardware_samples


def sampled(process):
    samples = hardware_samples(process)
    next(samples)
    sum(range(1_000_000))
    return next(samples)


def test_process_0_tells_of_the_machine_and_each_process_of_itself():
    other = sampled(3)
    assert other.keys() == {"system/process_3_cpu_utilization_percentage", "system/process_3_memory_usage_megabytes"}
    assert other["system/process_3_cpu_utilization_percentage"] > 0
    assert 50 < other["system/process_3_memory_usage_megabytes"] < 50_000
    first = sampled(0)
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= first.keys()
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError:
        count = 0
    told = {name.split("_")[1] for name in first if name.startswith("system/gpu_")}
    assert told == {str(index) for index in range(count)}
