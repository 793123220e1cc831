"""`medsam weights`."""

from typing import ClassVar

from medsam_helpers.cli.parser import Command, Result
from medsam_helpers.errors import check_known
from medsam_helpers.sam.checkpoints import WEIGHTS, PinnedFile, fetch
from medsam_helpers.settings import Words


class Weights(Command):
    """Fetch the light checkpoints and check their hashes."""

    EXAMPLE: ClassVar[str] = "--list"
    POSITIONAL: ClassVar[tuple[str, ...]] = ("names",)

    names: Words = ()
    """Those to fetch; default: mobile-sam lite-medsam."""
    list: bool = False
    """List all, with licences."""

    def run(self, line: str) -> Result:
        for name in self.names:
            check_known("checkpoint", name, WEIGHTS)
        if self.list:
            for name, entry in WEIGHTS.items():
                if isinstance(entry, PinnedFile):
                    where = f"{entry.size / 1e6:.0f} MB, sha256 {entry.sha256[:12]}"
                else:
                    where = entry.repository
                print(f"{name:20} {entry.licence}  {where}  {entry.note}")
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
