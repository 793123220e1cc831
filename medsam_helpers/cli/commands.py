"""The commands that hand over to one function of the package; what they print is what it found or wrote."""

from argparse import ArgumentParser
from pathlib import Path
from typing import ClassVar

from medsam_helpers.cli.parser import Command, OfModel, Result, add_settings, tell_left_out, tell_trained_on
from medsam_helpers.errors import ConfigError
from medsam_helpers.files import check_writable
from medsam_helpers.runs.experiments import RESULTS, experiment_names, read_experiment, sources_of
from medsam_helpers.runs.settings import DataSettings, RunConfig, check_names
from medsam_helpers.sam.checkpoints import SPECIALISTS, WEIGHTS, PinnedFile, fetch
from medsam_helpers.settings import Words
from medsam_helpers.training.recipes import Recipe


class Weights(Command):
    """Fetch the light checkpoints and check their hashes."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("names",)

    names: Words = ()
    """Those to fetch; default: mobile-sam lite-medsam."""
    list: bool = False
    """List all, with licences."""

    def run(self, line: str) -> Result:
        for name in self.names:
            if name not in WEIGHTS:
                raise ConfigError(f"no checkpoint {name!r}: there are {', '.join(WEIGHTS)}")
        if self.list:
            for name, entry in WEIGHTS.items():
                if isinstance(entry, PinnedFile):
                    where = f"{entry.size / 1e6:.0f} MB, sha256 {entry.sha256[:12]}"
                else:
                    where = entry.repository
                print(f"{name:16} {entry.licence}  {where}  {entry.note}")
            return {"checkpoints": [*WEIGHTS]}
        paths = {}
        for name in self.names or [name for name, entry in WEIGHTS.items() if isinstance(entry, PinnedFile)]:
            entry = WEIGHTS[name]
            if isinstance(entry, PinnedFile):
                paths[name] = str(fetch(entry))
            else:
                from medsam_helpers.sam.loading import load_sam

                load_sam(name)
                paths[name] = "in the hub's own cache"
            print(f"{name}: {paths[name]}")
        return paths


class Audit(Command, DataSettings):
    """List what is wrong with a data set; exit status 1 if something is."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("data",)
    REQUIRED: ClassVar[tuple[str, ...]] = ("data",)

    @classmethod
    def add_to(cls, parser: ArgumentParser) -> None:
        """All cases are looked at: no limits."""
        add_settings(parser, cls, but=("train_limit", "dev_limit", "val_limit", "test_limit", "skip_bad"))

    def run(self, line: str) -> Result:
        check_names(data=self.data)
        from medsam_helpers.data.audit import audit

        report = audit(self.data, **self.selection())
        print(report)
        counts = report.table.groupby("severity").size()
        found = {f"{severity}s": int(counts.get(severity, 0)) for severity in ("error", "warning", "note")}
        return {"exit_status": report.exit_status, **found}


class Finetune(Command, RunConfig):
    """Fine-tune the mask decoder, score it once on val."""

    REQUIRED: ClassVar[tuple[str, ...]] = ("data",)
    RESUMES: ClassVar[bool] = True

    output: Path = Path("runs/finetune")
    """Folder for weights, scores, cards and pictures; a stopped run in it goes on."""

    @classmethod
    def add_to(cls, parser: ArgumentParser) -> None:
        """The run's settings, then those of the recipe."""
        add_settings(parser, cls, but=("change",))
        add_settings(parser.add_argument_group("in place of the recipe's"), Recipe)

    def run(self, line: str) -> Result:
        check_names(model=self.model, checkpoint=self.start_folder, data=self.data)
        from medsam_helpers.evaluation.tables import paired_gain
        from medsam_helpers.runs.findings import gain_text
        from medsam_helpers.runs.finetune import finetune
        from medsam_helpers.runs.folder import summary_text

        config, output = self.config(), self.output
        run = finetune(config, output.expanduser(), command=line)
        figures = run.figures
        tell_left_out(figures["left_out"])
        tell_trained_on(config.model)
        print(summary_text(run.table, f"{config}", f"{run.dataset}; scored on val"))
        before = "random weights" if config.model in SPECIALISTS else "zero-shot"
        gain = paired_gain(run.table, figures["prompt"])
        told = gain_text(gain, figures["n_val"])
        print(f"gain{' with tta' * config.tta} over {before}, prompt {figures['prompt']}: {told}")
        if not figures["best_epoch"]:
            began = config.start_folder or before
            print(f"no epoch was better than {began} on dev, so the weights are those it began with")
        print(f"written to {output}: summary.md, before_after.png, metrics.csv, decoder.safetensors, run_card.json")
        return figures


class Reproduce(Command):
    """Run an experiment of experiments/ and record it; goes on after a stop."""

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


class Export(Command, OfModel):
    """Write the whole model for plain transformers."""

    output: Path
    """A new folder."""
    peft: bool = False
    """Of a run with LoRA only its matrices and the decoder, in peft's layout."""
    push_to_hub: str | None = None
    """OWNER/NAME of a repository to send it to; needs HF_TOKEN in the environment, or `hf auth login`."""

    def run(self, line: str) -> Result:
        check_names(model=self.model, checkpoint=self.folder)
        output = self.output.expanduser()
        check_writable(output)
        from medsam_helpers.runs.export import check_hub_access, export_adapter, export_model, push_to_hub

        if self.push_to_hub is not None:  # an empty name, of an unset variable, is a mistake too
            check_hub_access(self.push_to_hub)
        folder = (export_adapter if self.peft else export_model)(self.folder or str(self.model), output)
        print(f"written to {folder}")
        result = {"folder": str(folder)}
        if self.push_to_hub:
            result["url"] = push_to_hub(folder, self.push_to_hub)
            print(f"sent to {result['url']}")
        return result
