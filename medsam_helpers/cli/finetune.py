"""`medsam finetune`."""

from argparse import ArgumentParser
from pathlib import Path
from typing import ClassVar

from medsam_helpers.cli.parser import Command, Result, add_settings, tell_of
from medsam_helpers.runs.settings import RunConfig, check_names
from medsam_helpers.sam.checkpoints import SPECIALISTS
from medsam_helpers.training.recipes import Recipe


class Finetune(Command, RunConfig):
    """Fine-tune the mask decoder, score it once on val."""

    EXAMPLE: ClassVar[str] = "--data path/to/folder --epochs 5 --output runs/first"
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
        tell_of(figures["left_out"], config.model)
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
