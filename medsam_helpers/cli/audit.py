"""`medsam audit`."""

from argparse import ArgumentParser
from typing import ClassVar

from medsam_helpers.cli.parser import Command, Result, add_settings
from medsam_helpers.runs.settings import DataSettings, check_names


class Audit(Command, DataSettings):
    """List what is wrong with a data set; exit status 1 if something is."""

    EXAMPLE: ClassVar[str] = "path/to/folder"
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
