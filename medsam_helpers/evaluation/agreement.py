"""Agreement of two measurements, such as areas with the reference's.

A correlation does not show it: that is the same if every area is doubled.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from medsam_helpers.errors import DataError, ShapeError


class Agreement(NamedTuple):
    """Limits of agreement: the mean difference, the range that holds 95 % of single differences, their 95 % intervals.

    >>> str(Agreement(1.05, 0.73, 1.5, (1.02, 1.08), (0.7, 0.76), (1.45, 1.55)))
    '1.05, limits 0.73 to 1.50'
    """

    bias: float
    low: float
    high: float
    bias_ci: tuple[float, float]
    low_ci: tuple[float, float]
    high_ci: tuple[float, float]

    def __str__(self) -> str:
        return f"{self.bias:.2f}, limits {self.low:.2f} to {self.high:.2f}"


def limits_of_agreement(reference: ArrayLike, measured: ArrayLike, *, ratio: bool = False) -> Agreement:
    """Bland-Altman limits of agreement: `bias +- 1.96 s` of the differences.

    They take the differences for normal, with one spread over the whole range. Where it grows with the size, as with
    areas, take ratios: the same on logarithms, taken back.

    Args:
        reference, measured: (N,) float, of the same cases in the same order.
        ratio: `measured / reference` in place of `measured - reference`.
    Raises:
        ShapeError: not two lists of one length.
        DataError: fewer than three cases, a value that is not finite, or a ratio with one that is not positive.
    Source: Bland and Altman, Lancet 1986, doi:10.1016/S0140-6736(86)90837-8; the intervals of the limits: Statistical
        Methods in Medical Research 1999, doi:10.1177/096228029900800204, section 2.2.

    >>> print(limits_of_agreement([1, 2, 3, 4], [2, 2, 4, 4]))
    0.50, limits -0.63 to 1.63
    """
    pairs = paired(reference, measured)
    if pairs.shape[1] < 3 or not np.isfinite(pairs).all():
        raise DataError(f"agreement needs three finite pairs or more, got {np.isfinite(pairs).all(axis=0).sum()}")
    if ratio and pairs.min() <= 0:
        raise DataError("a ratio needs positive values: leave out empty masks, and say how many there were")
    differences = np.diff(np.log(pairs) if ratio else pairs, axis=0)[0]
    count, bias, spread = len(differences), differences.mean(), differences.std(ddof=1)
    t = stats.t.ppf(0.975, count - 1)
    of_bias, of_limit = t * spread / np.sqrt(count), t * spread * np.sqrt(1 / count + 1.96**2 / (2 * (count - 1)))
    halves = ((bias, of_bias), (bias - 1.96 * spread, of_limit), (bias + 1.96 * spread, of_limit))
    found = np.array([[middle, middle - half, middle + half] for middle, half in halves])
    (bias, b0, b1), (low, l0, l1), (high, h0, h1) = (np.exp(found) if ratio else found).tolist()
    return Agreement(bias, low, high, (b0, b1), (l0, l1), (h0, h1))


def paired(first: ArrayLike, second: ArrayLike) -> np.ndarray:
    """(2, N) float64 of two lists; `ShapeError` where they are not two of one length."""
    one, other = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if one.shape != other.shape or one.ndim != 1:
        raise ShapeError(f"this needs two lists of one length, got shapes {one.shape} and {other.shape}")
    return np.stack([one, other])
