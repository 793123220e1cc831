"""`medsam audit`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from medsam_helpers.cli.parser import Command, Result
from medsam_helpers.data.sources import SOURCES, load_data


class Audit(Command):
    """List what is wrong with a data set; exit status 1 if something is."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("data",)

    data: str
    """A folder with images/ and masks/, or phantom, phantom-ultrasound, kvasir, breast."""

    def run(self, line: str) -> Result:
        from medsam_helpers.data.audit import audit

        folder = Path(self.data).expanduser()
        report = audit(folder if self.data not in SOURCES and (folder / "images").is_dir() else load_data(self.data))
        print(report)
        counts = report.table.groupby("severity").size()
        found = {f"{severity}s": int(counts.get(severity, 0)) for severity in ("error", "warning", "note")}
        return {"exit_status": report.exit_status, **found}
