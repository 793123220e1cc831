"""`medsam audit`."""

from __future__ import annotations

from typing import ClassVar

from medsam_helpers.cli.parser import Command, Result
from medsam_helpers.runs.settings import DataSettings, check_names


class Audit(Command, DataSettings):
    """List what is wrong with a data set; exit status 1 if something is."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("data",)
    REQUIRED: ClassVar[tuple[str, ...]] = ("data",)
    # All cases are looked at.
    HIDDEN: ClassVar[tuple[str, ...]] = ("train_limit", "dev_limit", "val_limit", "test_limit", "skip_bad")

    def run(self, line: str) -> Result:
        check_names(data=self.data)
        from medsam_helpers.data.audit import audit

        report = audit(self.data, **self.selection())
        print(report)
        counts = report.table.groupby("severity").size()
        found = {f"{severity}s": int(counts.get(severity, 0)) for severity in ("error", "warning", "note")}
        return {"exit_status": report.exit_status, **found}
