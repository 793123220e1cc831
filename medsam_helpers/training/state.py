"""All that a training run needs to go on after a stop, in one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from medsam_helpers.errors import CheckpointError, ConfigError
from medsam_helpers.files import atomic_write

STATE_FILE = "training_state.safetensors"
_CURRENT, _BEST, _AVERAGE, _OPTIMIZER = "current/", "best/", "average/", "optimizer/"


@dataclass
class TrainingState:
    """Where a run stands after its last whole epoch.

    `identity` says which run this is (recipe, seed, data, base): a file of another run is refused, not overwritten.
    Epoch 0 is the model before training; `epoch` is -1 until it was scored.
    """

    path: Path
    identity: dict[str, Any]
    history: list[dict[str, float]] = field(default_factory=list)
    finished: bool = False
    current: dict[str, Tensor] = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Tensor] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, identity: Mapping[str, Any]) -> TrainingState:
        """The state at `path`, or a fresh one where there is no file.

        Raises:
            ConfigError: the file is of a run with another identity; says what differs.
            CheckpointError: the file is damaged.
        """
        # Through JSON and back, as a stored one comes: tuples become lists.
        identity = json.loads(json.dumps(identity))
        if not path.exists():
            return cls(path, identity)
        try:
            with safe_open(path, framework="pt") as file:
                stored = json.loads(file.metadata()["run"])
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
        except (SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise CheckpointError(f"{path}: damaged training state ({error}); delete it to start anew") from error
        if stored["identity"] != identity:
            differing = ", ".join(_differences(stored["identity"], identity))
            raise ConfigError(f"{path.parent} holds a run with other settings ({differing}): use another output folder")

        def group(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        run = {key: stored[key] for key in ("history", "finished", "scaler")}
        groups = {"current": _CURRENT, "best": _BEST, "average": _AVERAGE, "optimizer": _OPTIMIZER}
        return cls(path, identity, **{name: group(prefix) for name, prefix in groups.items()}, **run)

    @property
    def epoch(self) -> int:
        """The last whole epoch."""
        return len(self.history) - 1

    @property
    def best_epoch(self) -> int:
        """The epoch with the highest dev Dice; the earlier one where two are equal."""
        return max(range(len(self.history)), key=lambda epoch: self.history[epoch]["dev_dice"])

    @property
    def best_dice(self) -> float:
        """Dev Dice of the best epoch."""
        return self.history[self.best_epoch]["dev_dice"]

    def record(self, row: Mapping[str, float], current: dict[str, Tensor], scored: dict[str, Tensor]) -> None:
        """Add an epoch's row (with `dev_dice`), the weights to go on from, and those scored: maybe the best."""
        self.history.append(dict(row))
        self.current = current
        if self.best_epoch == self.epoch:
            self.best = scored

    def save(self, optimizer: torch.optim.Optimizer, scaler: Any = None) -> None:
        """Write everything, whole or not at all."""
        self.optimizer = {
            f"{index}/{name}": torch.as_tensor(value).detach().cpu().clone()
            for index, values in optimizer.state_dict()["state"].items()
            for name, value in values.items()
        }
        self.scaler = scaler.state_dict() if scaler is not None else {}
        groups = {_CURRENT: self.current, _BEST: self.best, _AVERAGE: self.average, _OPTIMIZER: self.optimizer}
        # Equal tensors may share memory (current is best): safetensors wants each its own.
        tensors = {prefix + key: value.clone() for prefix, group in groups.items() for key, value in group.items()}
        run = {name: getattr(self, name) for name in ("identity", "history", "finished", "scaler")}
        with atomic_write(self.path) as temporary:
            save_file(tensors, temporary, metadata={"run": json.dumps(run)})

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Put weights and optimiser back to where the last whole epoch left them."""
        model.load_state_dict(self.current, strict=False)
        values: dict[int, dict[str, Tensor]] = {}
        for key, tensor in self.optimizer.items():
            index, name = key.split("/")
            values.setdefault(int(index), {})[name] = tensor
        if values:
            optimizer.load_state_dict({"state": values, "param_groups": optimizer.state_dict()["param_groups"]})


def _differences(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    flat_stored, flat_asked = ({**side.get("recipe", {}), **side} for side in (stored, asked))
    keys = [k for k in flat_stored | flat_asked if k != "recipe" and flat_stored.get(k) != flat_asked.get(k)]
    return [f"{k} is {_short(flat_stored.get(k))}, asked for {_short(flat_asked.get(k))}" for k in keys]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:12]}..."
