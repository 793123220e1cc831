"""Maps of an embedding: they lie over the right pixels, and hold what they say."""

import numpy as np
import pytest
import torch

from medsam_helpers.errors import PromptError
from medsam_helpers.geometry import ImageTransform
from medsam_helpers.sam.embedding_maps import cell_of, cosine_similarity_map, image_cells, principal_components
from medsam_helpers.sam.segmenter import Embedding, Segmenter


def embedding_of(features, original_hw=(512, 1024)):
    """Channels (C, 16, 16) as the embedding of an image in a model space of 1024."""
    return Embedding(features[None], ImageTransform(original_hw))


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("original_hw", "rows", "columns"),
    [((512, 1024), 8, 16), ((1024, 1024), 16, 16), ((300, 200), 16, 11), ((513, 1024), 9, 16)],
)
def test_the_image_covers_the_cells_that_any_of_its_pixels_lie_in(original_hw, rows, columns):
    assert image_cells(embedding_of(noise(4, 16, 16), original_hw)) == (slice(rows), slice(columns))


@pytest.mark.parametrize(
    ("point", "cell"),
    [((0, 0), (0, 0)), ((63, 0), (0, 0)), ((64, 0), (0, 1)), ((1023, 511), (7, 15)), ((10, 200), (3, 0))],
)
def test_a_pixel_lies_in_the_cell_that_its_centre_lies_in(point, cell):
    assert cell_of(embedding_of(noise(4, 16, 16)), np.array(point)) == cell


def test_in_a_small_image_each_pixel_spans_cells_and_its_centre_decides():
    # 8 pixels wide, 128 of the model space each: the centre of pixel 3 is at 448, in cell 7 of 64 pixels.
    assert cell_of(embedding_of(noise(4, 16, 16), (4, 8)), np.array([3, 0])) == (1, 7)


def test_likeness_is_the_cosine():
    features = torch.zeros(2, 16, 16)
    features[0, :, :8] = 3.0  # the left half points along the first axis,
    features[0, :, 8:], features[1, :, 8:] = 1.0, 1.0  # the right half at 45 degrees to it
    like = cosine_similarity_map(embedding_of(features), np.array([100, 100]))
    assert like.shape == (512, 1024)
    np.testing.assert_allclose(like[:, :440], 1, atol=1e-6)
    np.testing.assert_allclose(like[:, 600:], np.sqrt(0.5), atol=1e-6)


def test_likeness_does_not_care_for_length():
    embedding = embedding_of(noise(8, 16, 16))
    scaled = embedding_of(noise(8, 16, 16) * (1 + torch.arange(16.0)))
    np.testing.assert_allclose(
        cosine_similarity_map(embedding, [700, 90]), cosine_similarity_map(scaled, [700, 90]), atol=1e-5
    )


def test_a_click_outside_is_named():
    with pytest.raises(PromptError, match="lies outside the image"):
        cosine_similarity_map(embedding_of(noise(4, 16, 16)), np.array([5, 512]))


def test_components_are_those_of_numpy_and_padding_has_no_say():
    features = noise(6, 16, 16) * torch.tensor([9.0, 5, 3, 1, 1, 1])[:, None, None]
    features[:, 8:] = 1000.0  # below the image: padding
    maps, shares = principal_components(embedding_of(features), 2)
    cells = features[:, :8].flatten(1).numpy()
    values, vectors = np.linalg.eigh(np.cov(cells))
    np.testing.assert_allclose(shares, (values / values.sum())[:-3:-1], rtol=1e-4)
    assert maps.shape == (2, 512, 1024)
    assert maps.min() == 0
    assert maps.max() == 1
    # Rows next to the padding are mixed with it by the enlargement: compare well above it, at the cells' centres.
    strongest = (vectors[:, -1] @ cells).reshape(8, 16)[:6]
    assert abs(np.corrcoef(maps[0, 32:384:64, 32::64].ravel(), strongest.ravel())[0, 1]) > 0.97


def test_the_sign_is_fixed():
    features = noise(6, 16, 16)
    one, other = (principal_components(embedding_of(sign * features))[0] for sign in (1, -1))
    # Negated features have the same directions, so the maps are each other's negative.
    np.testing.assert_allclose(one, 1 - other, atol=1e-4)


@pytest.mark.filterwarnings("error")
def test_an_embedding_without_variance_gives_finite_maps():
    maps, shares = principal_components(embedding_of(torch.ones(4, 16, 16)))
    assert np.isfinite(maps).all()
    assert shares.shape == (3,)


def test_a_model_s_own_embedding_can_be_looked_at(tiny_sam, discs):
    case = discs(1)[0]
    embedding = Segmenter(tiny_sam, "cpu", precision="fp32").embed(case.image)
    maps, shares = principal_components(embedding)
    assert maps.shape == (3, *case.size_hw)
    assert (np.diff(shares) <= 0).all()
    like = cosine_similarity_map(embedding, [5, 5])
    assert like.shape == case.size_hw
    assert like.max() <= 1 + 1e-5
