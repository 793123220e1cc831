"""Each picture through the encoder once."""

import threading

from helpers import draw_discs, embedded, make_tiny_sam

from medsam_helpers.data.case import Cases
from medsam_helpers.runs.embed import embed_cases
from medsam_helpers.sam.embeddings import EmbeddingStore


def test_a_picture_that_comes_again_before_it_is_written_is_encoded_once(tmp_path, monkeypatch):
    disc, asked = draw_discs(1)[0], threading.Event()

    def draw(name):
        if name == "third":
            asked.set()
        return disc

    def put(*pair, write=EmbeddingStore.put):
        assert asked.wait(60)
        write(segmenter.store, *pair)

    segmenter = embedded(make_tiny_sam(), Cases([], draw), tmp_path)
    monkeypatch.setattr(segmenter.store, "put", put)
    assert embed_cases(segmenter, Cases(["first", "second", "third"], draw), show_progress=False)[0] == 1
    assert segmenter.store.holds(disc.image_digest)
