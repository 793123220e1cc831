"""All that a training run needs to go on after a stop, in one safetensors file, and the average of its weights."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from medsam_helpers.errors import CheckpointError, ConfigError, one_line
from medsam_helpers.files import atomic_write
from medsam_helpers.sam.loading import state_digest

STATE_FILE = "training_state.safetensors"
_GROUPS = ("current", "best", "average", "optimizer")


@dataclass
class TrainingState:
    """Where a run stands after its last whole epoch, or amid the next; epoch 0 is the model before training.

    `identity` says which run this is (recipe, seed, data, base); `judge` is the column of the history by which the
    best epoch is chosen, higher is better. `losses` and `seconds` are of the steps done since the last whole epoch.
    """

    path: Path
    identity: dict[str, Any]
    judge: str = "dev_dice"
    history: list[dict[str, float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    finished: bool = False
    current: dict[str, Tensor] = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Tensor] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, identity: dict[str, Any], judge: str = "dev_dice") -> Self:
        """The state at `path`, or a fresh one; `ConfigError`: it is another run's; `CheckpointError`: it is damaged."""
        identity = json.loads(json.dumps(identity))  # as a stored one comes: tuples become lists
        if not path.exists():
            return cls(path, identity, judge)
        try:
            with safe_open(path, framework="pt") as file:
                run = json.loads(file.metadata()["run"])
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
            stored, digest = run.pop("identity"), run.pop("digest")
            state = cls(path, identity, judge, **run)
            if digest != state_digest(tensors):
                raise ValueError("its numbers changed since it was written")
        except (SafetensorError, OSError, LookupError, TypeError, ValueError, RecursionError, AttributeError) as error:
            told = f"{path}: damaged training state ({one_line(error, 150)})"
            raise CheckpointError(f"{told}; name a new output folder, or empty this one, to start anew") from error
        if stored != identity:
            differing = ", ".join(_differences(stored, identity))
            raise ConfigError(f"{path.parent} holds a run with other settings ({differing}): use another output folder")
        for key, tensor in tensors.items():
            group, name = key.split("/", 1)
            getattr(state, group)[name] = tensor
        return state

    @property
    def epoch(self) -> int:
        """The last whole epoch; -1 before epoch 0 is scored."""
        return len(self.history) - 1

    @property
    def best_epoch(self) -> int:
        """The epoch with the highest score on dev; the earlier one where two are equal."""
        return max(range(len(self.history)), key=lambda epoch: self.history[epoch][self.judge])

    def record(self, row: Mapping[str, float], current: dict[str, Tensor], scored: dict[str, Tensor]) -> None:
        """Add an epoch's row, the weights to go on from, and those that were scored: maybe the best."""
        self.history.append(dict(row))
        self.losses, self.seconds = [], 0.0
        self.current = current
        if self.best_epoch == self.epoch:
            self.best = scored

    def save(self, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> None:
        """Write everything, whole or not at all."""
        self.optimizer = {
            f"{index}/{name}": torch.as_tensor(value).detach().cpu().clone()
            for index, values in optimizer.state_dict()["state"].items()
            for name, value in values.items()
            if value is not None
        }
        self.scaler = scaler.state_dict()
        # Equal tensors may share memory (current is best): safetensors wants each its own.
        tensors = {f"{group}/{name}": one.clone() for group in _GROUPS for name, one in getattr(self, group).items()}
        run = {name: getattr(self, name) for name in ("identity", "history", "losses", "seconds", "finished", "scaler")}
        run["digest"] = state_digest(tensors)
        with atomic_write(self.path) as temporary:
            save_file(tensors, temporary, metadata={"run": json.dumps(run)})

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> None:
        """Put weights, optimiser and scaler back to where they were when it was saved."""
        model.load_state_dict(self.current, strict=False)
        values: dict[int, dict[str, Tensor]] = {}
        for key, tensor in self.optimizer.items():
            index, name = key.split("/")
            values.setdefault(int(index), {})[name] = tensor
        if values:
            optimizer.load_state_dict({"state": values, "param_groups": optimizer.state_dict()["param_groups"]})
        if self.scaler:
            scaler.load_state_dict(self.scaler)


def _differences(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """In words; a setting that is in one of the two only has its default in the other."""
    one, other = ({**side.get("recipe", {}), **side} for side in (stored, asked))
    names = [name for name in one | other if name != "recipe" and one.get(name) != other.get(name)]
    of = {name: [str(side.get(name, "the default"))[:40] for side in (one, other)] for name in names}
    told = {name: f"is {was}, asked for {now}" for name, (was, now) in of.items()}
    told |= {name: "holds other images or masks than it did" for name in names if name in ("train", "dev")}
    return [f"{name} {words}" for name, words in told.items()]


class ExponentialMovingAverage:
    """Exponential moving average of the weights of a model that train, from one that was saved, or where they are.

    `decay` is the share that stays at each step; 0.98 remembers about 50 steps, 0 is the weights themselves.

    Source: Polyak and Juditsky, SIAM J. Control Optim. 1992; as a moving average, Tarvainen and Valpola, NeurIPS 2017.
    """

    def __init__(self, model: nn.Module, decay: float, saved: Mapping[str, Tensor]) -> None:
        self.model, self.decay = model, decay
        self.weights = {name: saved.get(name, weight).to(weight, copy=True) for name, weight in self._trained()}

    @torch.no_grad()
    def update(self) -> None:
        """Call after each step of the optimiser."""
        for name, weight in self._trained():
            self.weights[name].lerp_(weight, 1 - self.decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside the block the model has the averaged weights, afterwards its own again."""
        own = {name: weight.clone() for name, weight in self._trained()}
        self.model.load_state_dict(self.weights, strict=False)
        try:
            yield
        finally:
            self.model.load_state_dict(own, strict=False)

    def _trained(self) -> list[tuple[str, Tensor]]:
        return [(name, weight.detach()) for name, weight in self.model.named_parameters() if weight.requires_grad]
