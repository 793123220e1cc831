"""`medsam export`."""

from pathlib import Path
from typing import ClassVar

from medsam_helpers.cli.parser import Command, OfModel, Result
from medsam_helpers.files import check_writable
from medsam_helpers.runs.settings import check_names


class Export(Command, OfModel):
    """Write the whole model for plain transformers."""

    EXAMPLE: ClassVar[str] = "--checkpoint runs/first --output exported"

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
