"""Metrics by hand, against an oracle that looks at every pair of outline pixels, and against MONAI."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from scipy.spatial import distance_matrix

from medsam_helpers.errors import DataError, ShapeError
from medsam_helpers.evaluation.metrics import dice, iou, score_mask

pytestmark = pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # MONAI about itself


def ellipse(hw, centre_yx, radii_yx):
    y, x = np.mgrid[: hw[0], : hw[1]]
    return ((y - centre_yx[0]) / radii_yx[0]) ** 2 + ((x - centre_yx[1]) / radii_yx[1]) ** 2 <= 1


def outline_by_hand(mask):
    """(N, 2) y, x of the mask's pixels with a 4-neighbour that is not in the mask, or not in the image."""
    return np.argwhere(mask & ~ndimage.binary_erosion(mask))


def distances_by_hand(pred, true):
    """Both directions, from all pairs."""
    pairs = distance_matrix(outline_by_hand(pred), outline_by_hand(true))
    return pairs.min(axis=1), pairs.min(axis=0)


def monai_scores(pred, true, tolerance_px):
    """HD95 in percent of the diagonal, and NSD."""
    # Here, since importing MONAI takes seconds, and every process that collects tests would wait for it.
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    batch = [torch.from_numpy(mask)[None, None] for mask in (pred, true)]
    pixels = compute_hausdorff_distance(*batch, include_background=True, percentile=95).item()
    near = compute_surface_dice(*batch, [tolerance_px], include_background=True).item()
    return 100 * pixels / np.hypot(*true.shape), near


def distances(pred, true, tolerance_1024=2.0):
    """HD95 in percent of the diagonal, and NSD."""
    scores = score_mask(pred, true, tolerance_1024)
    return scores["hd95_percent"], scores["nsd"]


def test_hd95_takes_the_worse_direction():
    # The prediction lies on the reference; the reference goes on for 20 more pixels.
    pred, true = np.zeros((30, 40), bool), np.zeros((30, 40), bool)
    pred[5, 5] = True
    true[5, 5:26] = True
    assert distances(pred, true)[0] == pytest.approx(100 * np.percentile(np.arange(21), 95) / 50)
    assert dice(pred, true) == pytest.approx(2 * 1 / (1 + 21))
    assert iou(pred, true) == pytest.approx(1 / 21)


def test_nsd_by_hand():
    # Columns 0 and 3 of an image 1024 wide: every outline pixel is 3 away from the other line.
    pred, true = np.zeros((5, 1024), bool), np.zeros((5, 1024), bool)
    pred[:, 0] = true[:, 3] = True
    assert [distances(pred, true, tolerance)[1] for tolerance in (2.9, 3)] == [0, 1]
    left = pred[:, :512], true[:, :512]
    assert [distances(*left, tolerance)[1] for tolerance in (5.9, 6)] == [0, 1], "it is twice as wide in 1024"
    true[0, 1] = True  # the reference's new pixel is 1 away; of the prediction's the first 3 are within sqrt(5)
    assert distances(pred, true, 2.3)[1] == pytest.approx((3 + 1) / (5 + 6))


def test_empty_masks_are_defined():
    empty, filled = np.zeros((6, 8), bool), np.ones((6, 8), bool)
    assert score_mask(empty, empty) == {"dice": 1, "iou": 1, "hd95_percent": 0, "nsd": 1}
    for pair in ((empty, filled), (filled, empty)):
        assert score_mask(*pair) == {"dice": 0, "iou": 0, "hd95_percent": 100, "nsd": 0}


mask_strategy = hnp.arrays(np.bool_, (7, 9))


@settings(max_examples=30, deadline=None)
@given(mask_strategy, mask_strategy)
def test_distances_equal_all_pairs_and_monai(pred, true):
    pred[3, 4] = true[2, 2] = True  # neither empty
    there, back = distances_by_hand(pred, true)
    expected = 100 * max(np.percentile(there, 95), np.percentile(back, 95)) / np.hypot(7, 9)
    # 1.5 pixels: no distance between pixels equals it, so rounding cannot decide.
    found = distances(pred, true, 1.5 * 1024 / 9)
    assert found == pytest.approx((expected, np.mean(np.concatenate([there, back]) <= 1.5)), rel=1e-6)
    assert found == pytest.approx(monai_scores(pred, true, 1.5), rel=1e-4)  # MONAI interpolates in float32


@settings(max_examples=60, deadline=None)
@given(mask_strategy, mask_strategy)
def test_symmetric_perfect_on_itself_and_in_range(pred, true):
    scores = score_mask(pred, true)
    assert scores == pytest.approx(score_mask(true, pred))
    assert score_mask(true, true) == {"dice": 1, "iou": 1, "hd95_percent": 0, "nsd": 1}
    assert all(0 <= score <= (100 if name == "hd95_percent" else 1) for name, score in scores.items())
    assert dice(pred, true) == pytest.approx(2 * iou(pred, true) / (1 + iou(pred, true)))


def test_scores_of_a_large_image_are_those_of_monai():
    pred = ellipse((1072, 1920), (500, 900), (300, 330))
    true = ellipse((1072, 1920), (520, 900), (310, 300)) | ellipse((1072, 1920), (1071, 1900), (40, 40))
    assert distances(pred, true) == pytest.approx(monai_scores(pred, true, 2 * 1920 / 1024), rel=1e-5)


@pytest.mark.parametrize("metric", [dice, iou, score_mask])
def test_wrong_masks_are_refused(metric):
    mask = np.ones((4, 6), bool)
    with pytest.raises(ShapeError, match=r"\(6, 4\)"):
        metric(mask.T, mask)
    with pytest.raises(DataError, match=r"uint8.*binarise"):
        metric(mask.astype(np.uint8) * 255, mask)
