"""`medsam embed`."""

from __future__ import annotations

from typing import ClassVar

from medsam_helpers.cli.parser import Call, Command, Result
from medsam_helpers.data.sources import load_data
from medsam_helpers.runs.settings import DataSettings, check_names
from medsam_helpers.training.recipes import Precision


class Embed(Command, DataSettings):
    """Compute a data set's embeddings and keep them."""

    REQUIRED: ClassVar[tuple[str, ...]] = ("data",)
    RESUMES: ClassVar[bool] = True

    model: str
    """A name of `medsam weights --list`, or a path."""
    precision: Precision = "auto"
    """Of the encoder."""

    def run(self, call: Call) -> Result:
        """Fill the model's store."""
        check_names(model=self.model, data=self.data)
        dataset = load_data(self.data, **self.limits())
        from medsam_helpers.runs.finetune import embed_cases
        from medsam_helpers.sam.embeddings import EmbeddingStore
        from medsam_helpers.sam.segmenter import Segmenter

        segmenter = Segmenter.load(self.model, precision=self.precision)
        segmenter.store = store = EmbeddingStore.for_model(segmenter.info, segmenter.precision)
        parts = [embed_cases(segmenter, split) for split in (dataset.train, dataset.dev, dataset.val)]
        encoded, seconds = (sum(column) for column in zip(*parts, strict=True))
        print(f"{dataset}; {encoded} images encoded in {seconds:.1f} s ({segmenter.precision}); {store.folder}")
        return {
            "encoded": encoded,
            "in_store": len(store),
            "seconds_encode": round(seconds, 1),
            "precision": segmenter.precision,
            "store": str(store.folder),
        }


COMMAND = Embed
