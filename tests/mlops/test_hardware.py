"""The machine is told of while a run goes on: each process by itself, GPUs by their index."""

import pynvml

from medsam_helpers.mlops.hardware import hardware_samples


def sampled(*process):
    samples = hardware_samples(*process)
    next(samples)
    sum(range(1_000_000))
    return next(samples)


def test_the_first_process_of_a_machine_tells_of_it_and_each_process_of_itself():
    other = sampled(3, 1)
    assert other.keys() == {"system/process_3_cpu_utilization_percentage", "system/process_3_memory_usage_megabytes"}
    assert other["system/process_3_cpu_utilization_percentage"] > 0
    assert 50 < other["system/process_3_memory_usage_megabytes"] < 50_000
    second = sampled(2, 0)
    assert "system/process_2_machine_cpu_utilization_percentage" in second
    assert "system/cpu_utilization_percentage" not in second
    first = sampled(0)
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= first.keys()
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError:
        count = 0
    told = {name.split("_")[1] for name in first if name.startswith("system/gpu_")}
    assert told == {str(index) for index in range(count)}
