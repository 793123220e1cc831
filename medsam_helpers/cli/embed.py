"""`medsam embed`."""

from __future__ import annotations

from typing import ClassVar

from medsam_helpers.cli.parser import Command, Result
from medsam_helpers.data.loading import load_data
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

    def run(self, line: str) -> Result:
        check_names(model=self.model, data=self.data)
        dataset = load_data(self.data, **self.selection())
        from medsam_helpers.runs.embed import embed_cases
        from medsam_helpers.sam.embeddings import EmbeddingStore
        from medsam_helpers.sam.segmenter import Segmenter

        segmenter = Segmenter.load(self.model, precision=self.precision)
        segmenter.store = store = EmbeddingStore.for_model(segmenter.info, segmenter.precision)
        counts, seconds = zip(*(embed_cases(segmenter, cases) for cases in dataset.splits.values()), strict=True)
        encoded, took = sum(counts), round(sum(seconds), 1)
        print(f"{dataset}; {encoded} images encoded in {took} s ({segmenter.precision}); {store.folder}")
        told = {"encoded": encoded, "in_store": len(store), "seconds_encode": took, "store": str(store.folder)}
        return told | {"precision": segmenter.precision}
