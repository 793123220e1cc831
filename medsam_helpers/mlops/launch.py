"""A run as a job for a queue: a process of this machine, or a SLURM cluster."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import submitit
from submitit.helpers import Checkpointable, TorchDistributedEnvironment

from medsam_helpers.mlops.pipeline import train_tracked
from medsam_helpers.runs.finetune import finetune
from medsam_helpers.runs.settings import RunConfig


@dataclass
class TrainingJob(Checkpointable):
    """A run as a job. Stopped by the queue it is queued again, and ends in the same weights."""

    config: RunConfig
    output: Path  # folder of the run, on a disk that the job's machine sees too
    uri: str | None = None  # of the MLflow server, reachable from there; None leaves MLflow out

    def __call__(self) -> dict[str, Any]:
        """The run's figures; called in each of the job's processes."""
        if submitit.JobEnvironment().num_tasks > 1:
            TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
        if self.uri:
            run = train_tracked(self.config, self.output, uri=self.uri, show_progress=False).run
        else:
            run = finetune(self.config, self.output, show_progress=False)
        return json.loads(json.dumps(run.figures, default=float))


def submit(
    job: TrainingJob, jobs: str | Path, cluster: Literal["local", "slurm"] = "local", processes: int = 1, **options: Any
) -> submitit.Job:
    """The queued job, at once: `result()` waits for its figures or raises what the run raised, `stderr()` is its log.

    Args:
        jobs: folder of the queue's files and logs.
        cluster: "local" for a process of this machine, "slurm" for the cluster whose `sbatch` is on the path.
        processes: that train together, each on its GPU where there are some.
        options: of submitit: `timeout_min` (60), after which the job is queued again; `slurm_partition` or others.
    """
    executor = submitit.AutoExecutor(folder=Path(jobs).absolute() / "%j", cluster=cluster)
    options = {"name": "medsam", "timeout_min": 60, "slurm_signal_delay_s": 30, **options}
    executor.update_parameters(tasks_per_node=processes, **options)
    return executor.submit(job)
