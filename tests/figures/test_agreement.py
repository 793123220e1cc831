"""Limits of agreement by hand, and the picture of them."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from medsam_helpers.errors import DataError, ShapeError
from medsam_helpers.figures.agreement import bland_altman, limits_of_agreement


def test_limits_by_hand():
    # Differences 1, 0, 1, 0: mean 0.5, variance (4 x 0.25) / 3.
    found = limits_of_agreement([1, 2, 3, 4], [2, 2, 4, 4])
    spread = (1 / 3) ** 0.5
    assert found[:3] == pytest.approx((0.5, 0.5 - 1.96 * spread, 0.5 + 1.96 * spread))
    half = 3.182446 * spread / 2  # Student's t with three degrees of freedom, over the root of four
    assert found.bias_ci == pytest.approx((0.5 - half, 0.5 + half), abs=1e-5)
    of_limit = 3.182446 * spread * (1 / 4 + 1.96**2 / 6) ** 0.5
    assert found.high_ci == pytest.approx((found.high - of_limit, found.high + of_limit), abs=1e-5)


def test_ratios_are_the_same_on_logarithms_taken_back():
    reference, measured = np.array([1.0, 10, 100, 5]), np.array([1.1, 9, 150, 5])
    ratio = limits_of_agreement(reference, measured, ratio=True)
    logs = limits_of_agreement(np.log(reference), np.log(measured))
    np.testing.assert_allclose([ratio.bias, *ratio.low_ci], np.exp([logs.bias, *logs.low_ci]))
    # Turned round, a ratio becomes its inverse, and the limits change places.
    back = limits_of_agreement(measured, reference, ratio=True)
    np.testing.assert_allclose([1 / back.bias, 1 / back.high, 1 / back.low], [ratio.bias, ratio.low, ratio.high])


@pytest.mark.parametrize(
    ("reference", "measured", "ratio", "error", "match"),
    [
        ([1, 2, 3], [1, 2], False, ShapeError, r"\(3,\) and \(2,\)"),
        ([1, 2], [1, 2], False, DataError, "got 2"),
        ([1, 2, np.nan], [1, 2, 3], False, DataError, "got 2"),
        ([1, 2, 3], [1, 0, 3], True, DataError, "empty masks"),
    ],
)
def test_what_has_no_limits_is_refused(reference, measured, ratio, error, match):
    with pytest.raises(error, match=match):
        limits_of_agreement(reference, measured, ratio=ratio)


@pytest.mark.parametrize("ratio", [False, True])
def test_bland_altman_draws_differences_over_means_between_the_limits(ratio):
    ax = Figure().subplots()
    reference, measured = np.array([1.0, 2, 4, 8, 16]), np.array([1.5, 2, 5, 7, 20])
    bland_altman(ax, reference, measured, ratio=ratio)
    x, y = np.asarray(ax.collections[0].get_offsets()).T
    np.testing.assert_allclose(y, measured / reference if ratio else measured - reference)
    np.testing.assert_allclose(x, np.sqrt(reference * measured) if ratio else (reference + measured) / 2)
    limits = limits_of_agreement(reference, measured, ratio=ratio)
    heights = [line.get_ydata()[0] for line in ax.lines]
    np.testing.assert_allclose(heights, [1 if ratio else 0, *limits[:3]])
    assert ax.get_yscale() == ("log" if ratio else "linear")
