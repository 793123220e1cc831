"""Maps of an embedding: they lie over the right pixels, and hold what they say."""

import numpy as np
import pytest
import torch

from medsam_helpers.errors import PromptError
from medsam_helpers.figures.embedding_maps import cosine_similarity_map, principal_components
from medsam_helpers.geometry import ImageTransform
from medsam_helpers.sam.segmenter import Embedding


def embedding_of(features, original_hw=(512, 1024)):
    """Channels (C, 16, 16) as the embedding of an image in a model space of 1024."""
    return Embedding(features[None], ImageTransform(original_hw))


def test_similarity_is_the_cosine_to_the_cell_that_the_pixels_centre_lies_in():
    features = torch.zeros(2, 16, 16)
    features[0, :, :8] = 3.0  # the left half points along the first axis,
    features[0, :, 8:], features[1, :, 8:] = 1.0, 1.0  # the right half at 45 degrees to it
    embedding = embedding_of(features)
    for pixel, left in (([511, 100], 1), ([512, 100], np.sqrt(0.5))):
        similar = cosine_similarity_map(embedding, np.array(pixel))
        assert similar.shape == (512, 1024)
        np.testing.assert_allclose(similar[:, :440], left, atol=1e-6)
        np.testing.assert_allclose(similar[:, 600:], 1.0 + np.sqrt(0.5) - left, atol=1e-6)
    # 8 pixels wide, 128 of the model space each: the centre of pixel 3 is in cell 7, that of pixel 4 in cell 8.
    small = embedding_of(features, (4, 8))
    assert cosine_similarity_map(small, [3, 0])[0, 0] == pytest.approx(1, abs=1e-6)
    assert cosine_similarity_map(small, [4, 0])[0, 0] == pytest.approx(np.sqrt(0.5), abs=1e-6)
    with pytest.raises(PromptError, match="lies outside the image"):
        cosine_similarity_map(embedding, np.array([5, 512]))


@pytest.mark.filterwarnings("error")
def test_components_are_those_of_numpy_and_padding_has_no_say():
    features = torch.randn(6, 16, 16, generator=torch.Generator().manual_seed(0))
    features *= torch.tensor([9.0, 5, 3, 1, 1, 1])[:, None, None]
    features[:, 8:] = 1000.0  # below the image: padding
    maps, shares = principal_components(embedding_of(features), 2)
    cells = features[:, :8].flatten(1).numpy()
    values, vectors = np.linalg.eigh(np.cov(cells))
    np.testing.assert_allclose(shares, (values / values.sum())[:-3:-1], rtol=1e-4)
    assert maps.shape == (2, 512, 1024)
    assert (maps.min(), maps.max()) == (0, 1)
    # Rows next to the padding are mixed with it by the enlargement: compare well above it, at the cells' centres.
    strongest = (vectors[:, -1] @ cells).reshape(8, 16)[:6]
    assert abs(np.corrcoef(maps[0, 32:384:64, 32::64].ravel(), strongest.ravel())[0, 1]) > 0.97
    # Negated features have the same directions, whose sign is fixed: the maps are each other's negative.
    np.testing.assert_allclose(maps, 1 - principal_components(embedding_of(-features), 2)[0], atol=1e-4)
    assert np.isfinite(principal_components(embedding_of(torch.ones(4, 16, 16)))[0]).all(), "without variance too"
