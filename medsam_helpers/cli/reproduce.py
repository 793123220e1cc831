"""`medsam reproduce`."""

from pathlib import Path
from typing import ClassVar

from medsam_helpers.cli.parser import Command, Result
from medsam_helpers.runs.experiments import RESULTS, experiment_names, read_experiment, sources_of


class Reproduce(Command):
    """Run an experiment of experiments/ and record it; goes on after a stop."""

    EXAMPLE: ClassVar[str] = "kvasir-official --data path/to/kvasir-seg"
    POSITIONAL: ClassVar[tuple[str, ...]] = ("name",)
    REPEATED: ClassVar = {"data": "[NAME=]SOURCE"}
    RESUMES: ClassVar[bool] = True

    name: str | None = None
    """Of a file there, without .toml."""
    data: tuple[str, ...] = ()
    """In place of the data set of that name: a folder, or the name of a source."""
    output: Path | None = None
    """Folder for the record; default: notebooks/results/NAME."""
    missing: bool = False
    """Keep the runs that the record there holds, add the others."""
    list: bool = False
    """List the experiments there are."""

    def run(self, line: str) -> Result:
        if self.list or self.name is None:
            for name in experiment_names():
                experiment = read_experiment(name)
                print(f"{name:18} {len(experiment.trials):2} runs on {experiment.data}: {experiment.title}")
            return {"experiments": experiment_names()}
        experiment = read_experiment(self.name)
        sources = sources_of(experiment, self.data)
        from medsam_helpers.runs.reproduce import reproduce

        output = self.output.expanduser() if self.output else RESULTS / self.name
        summary = reproduce(experiment, sources, output, command=line, only_missing=self.missing)
        print(summary[["run", "seed", "fold", "tested_on", "n_train", "dev_dice", "gain"]].to_string(index=False))
        print(f"written to {output}: metrics.csv, history.csv, summary.csv, run_card.json")
        return {"folder": str(output), "runs": len(summary)}
