"""Several processes that do one run together: which of them this is, what its share is, what they add up."""

import atexit
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from medsam_helpers.device import default_device
from medsam_helpers.errors import ConfigError

T = TypeVar("T")


@cache
def processes() -> PartialState:
    """This process among those that `torchrun`, `accelerate launch` or SLURM started together; else it is alone."""
    state = PartialState(cpu=default_device().type == "cpu")
    atexit.register(state.destroy_process_group)
    return state


def share_of(count: int) -> range:
    """The indices, of `count`, that this process does: the processes' shares follow one another."""
    number, of = processes().process_index, processes().num_processes
    return range(count * number // of, count * (number + 1) // of)


def joined(parts: Sequence[T]) -> list[T]:
    """The parts of all processes, in the order of their shares. All of them have to ask."""
    return gather_object(list(parts)) if processes().num_processes > 1 else list(parts)


def add_up_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace each gradient by the sum over the processes."""
    if processes().num_processes > 1:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = parameters_to_vector(gradients)
        torch.distributed.all_reduce(flat)
        vector_to_parameters(flat, gradients)


def check_shared(folder: Path) -> None:
    """Check that the processes see one and the same folder, which is made; `ConfigError` if one sees another."""
    state, mark = processes(), folder / ".shared"
    folder.mkdir(parents=True, exist_ok=True)
    if state.is_main_process:
        mark.touch()
    state.wait_for_everyone()
    if not all(joined([mark.exists()])):
        told = f"{folder}: not every process sees this folder of the first one"
        raise ConfigError(f"{told}; name one on a disk that all machines share")
    if state.is_main_process:
        mark.unlink()
