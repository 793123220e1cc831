"""Near-duplicates: the fast search finds what two plain loops find."""

import numpy as np
import pytest
from helpers import patchwork

from medsam_helpers.data.duplicates import HASH_DISTANCE, near_duplicates, perceptual_hash, thumbnail


def test_vectorised_search_equals_two_plain_loops():
    rng = np.random.default_rng(0)
    scenes = np.stack([thumbnail(patchwork(number)) for number in range(12)])
    thumbnails = np.concatenate([scenes, scenes[::-1] + rng.normal(0, 6, scenes.shape), scenes * 0, scenes * 0 + 9])
    expected = []
    hashes = perceptual_hash(thumbnails)
    assert (perceptual_hash(0.5 * thumbnails) == hashes).all(), "brightness and contrast do not count"
    for i in range(len(thumbnails)):
        for j in range(i + 1, len(thumbnails)):
            if (hashes[i] != hashes[j]).sum() <= HASH_DISTANCE and thumbnails[i].std() and thumbnails[j].std():
                correlation = np.corrcoef(thumbnails[i].ravel(), thumbnails[j].ravel())[0, 1]
                if correlation >= 0.95:
                    expected.append((i, j, pytest.approx(correlation, abs=1e-4)))
    assert len(expected) >= 6
    assert near_duplicates(thumbnails) == expected
