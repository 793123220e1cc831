"""A run on a queue: a process of this machine, or a SLURM cluster, by one word."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import submitit
from submitit.core.utils import DelayedSubmission
from submitit.helpers import TorchDistributedEnvironment

from medsam_helpers.mlops.pipeline import train_tracked
from medsam_helpers.runs.finetune import finetune
from medsam_helpers.runs.settings import RunConfig


@dataclass
class TrainingJob:
    """A run as a job. Stopped by the queue (its time is over, or others come first) it is queued again.

    It then goes on with the epoch after the last whole one, and ends in the same weights.

    Args:
        config: what to run.
        output: folder of the run, on a disk that the job's machine sees too.
        uri: of the MLflow server, reachable from there; None leaves MLflow out.
        experiment: of MLflow.
    """

    config: RunConfig
    output: Path
    uri: str | None = None
    experiment: str = "medsam"

    def __call__(self) -> dict[str, Any]:
        """The run's figures; called in each of the job's processes."""
        if submitit.JobEnvironment().num_tasks > 1:
            TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
        if self.uri:
            options: dict[str, Any] = {"experiment": self.experiment, "uri": self.uri, "show_progress": False}
            run = train_tracked(self.config, self.output, **options).run
        else:
            run = finetune(self.config, self.output, show_progress=False)
        return json.loads(json.dumps(run.figures, default=float))

    def checkpoint(self) -> DelayedSubmission:
        """The same again; submitit asks for it when the queue stops the job."""
        return DelayedSubmission(self)


def submit(
    job: TrainingJob,
    jobs: str | Path,
    cluster: Literal["local", "slurm"] = "local",
    *,
    processes: int = 1,
    timeout_min: int = 60,
    **slurm: Any,
) -> submitit.Job:
    """The queued job, at once: `result()` waits for its figures or raises what the run raised, `stderr()` is its log.

    Args:
        job: what to run.
        jobs: folder of the queue's files and logs.
        cluster: "local" for a process of this machine, "slurm" for the cluster whose `sbatch` is on the path.
        processes: that train together, each on its GPU where there are some.
        timeout_min: after which the queue stops the job, and it is queued again.
        slurm: what else the cluster wants to know, `slurm_partition="gpu"` or `gpus_per_node=2`.
    """
    executor = submitit.AutoExecutor(folder=Path(jobs).absolute() / "%j", cluster=cluster)
    executor.update_parameters(
        name="medsam", tasks_per_node=processes, timeout_min=timeout_min, slurm_signal_delay_s=30, **slurm
    )
    return executor.submit(job)
