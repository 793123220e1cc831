"""`medsam phantoms`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from medsam_helpers.cli.parser import Command, Result
from medsam_helpers.errors import ConfigError
from medsam_helpers.files import check_writable


class Phantoms(Command):
    """Write a phantom data set as a folder."""

    kind: Literal["endoscopy", "ultrasound"] = "endoscopy"
    """What is drawn."""
    train: int = Field(80, ge=0)
    """Train cases."""
    dev: int = Field(16, ge=0)
    """Dev cases."""
    val: int = Field(64, ge=0)
    """Val cases."""
    seed: int = Field(0, ge=0)
    """Of the drawing."""
    output: Path
    """A new folder."""

    def run(self, line: str) -> Result:
        from medsam_helpers.phantoms.dataset import phantom_dataset, save_folder

        if not self.train + self.dev + self.val:
            raise ConfigError("nothing to draw: --train, --dev and --val are all 0")
        output = self.output.expanduser()
        check_writable(output)
        dataset = phantom_dataset(self.kind, n_train=self.train, n_dev=self.dev, n_val=self.val, seed=self.seed)
        save_folder(dataset, output)
        print(f"{dataset} in {output}")
        return {"folder": str(output), "n_train": self.train, "n_dev": self.dev, "n_val": self.val}
