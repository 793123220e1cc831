"""`medsam compare`."""

from pathlib import Path
from typing import ClassVar

from medsam_helpers.cli.parser import Command, Result
from medsam_helpers.files import atomic_write, check_output_dir


class Compare(Command):
    """Compare runs on the same images: each one's paired difference to the first."""

    EXAMPLE: ClassVar[str] = "runs/first runs/second"
    POSITIONAL: ClassVar[tuple[str, ...]] = ("runs",)

    runs: tuple[Path, ...]
    """Folders that finetune or evaluate wrote, the one to compare with first."""
    model: str | None = None
    """Whose scores; default: tuned, else the only model of a run."""
    prompt: str | None = None
    """Such as exact or j20; default: all, which each run must have."""
    output: Path | None = None
    """Folder for comparison.csv and comparison.png."""

    def run(self, line: str) -> Result:
        output = self.output and self.output.expanduser()
        if output:
            check_output_dir(output, mark="comparison.csv")
        from medsam_helpers.runs.compare import compare_runs, differing_settings, read_runs
        from medsam_helpers.runs.findings import findings

        table = read_runs(self.runs, self.model, self.prompt)
        compared = compare_runs(table)
        print(compared.round(3).replace(-0.0, 0.0).to_string(index=False, na_rep=""))
        first, *others = table["model"].unique()
        for other, folder in zip(others, self.runs[1:], strict=True):
            differ = differing_settings(self.runs[0].expanduser(), folder.expanduser())
            print(f"{first} and {other} differ in: {'; '.join(differ) or 'nothing that their cards tell'}")
            print(*findings(table, model=other, base=first), sep="\n")
        rows = compared.round(6).astype(object).where(compared.notna(), None).to_dict("records")
        result: Result = {"first": first, "compared": rows}
        if output:
            from medsam_helpers.figures.scores import comparison_figure

            with atomic_write(output / "comparison.csv") as temporary:
                compared.to_csv(temporary, index=False, float_format="%.6f", lineterminator="\n")
            with atomic_write(output / "comparison.png") as temporary:
                comparison_figure(table).savefig(temporary, dpi=110)
            print(f"written to {output}: comparison.csv, comparison.png")
            result["folder"] = str(output)
        return result
