"""95 % intervals of a mean: of scores, of paired gains, of clustered images; limits of agreement."""

from collections.abc import Hashable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import special, stats

from medsam_helpers.errors import ConfigError, DataError, ShapeError

Method = Literal["logit-t", "t", "percentile"]
FEWEST = 5  # images, or groups of images, below which a mean has no interval


class Interval(NamedTuple):
    """A mean with its 95 % interval; `low` and `high` are NaN where there are too few images for one.

    >>> print(Interval(0.021, 0.014, 0.029), Interval(0.5, np.nan, np.nan), sep="; ")
    0.021 [0.014, 0.029]; 0.500 (no interval below 5 images)
    """

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return self.text()

    def text(self, form: str = ".3f") -> str:
        """The same in another format, such as "+.3f" for gains."""
        known = np.isfinite([self.low, self.high]).all()
        ends = f"[{self.low:{form}}, {self.high:{form}}]" if known else f"(no interval below {FEWEST} images)"
        return f"{self.mean:{form}} {ends}"

    def for_json(self) -> list[float | None]:
        """Mean, low and high, rounded; None where NaN, which JSON cannot hold."""
        return [round(float(value), 6) if np.isfinite(value) else None for value in self]


def mean_interval(
    values: ArrayLike, method: Method = "logit-t", *, groups: Sequence[Hashable] | None = None
) -> Interval:
    """Mean of `values` with its 95 % interval; of equal values without width, of fewer than five without interval.

    Args:
        values: (N,) float, one an image.
        method: "logit-t": Student's t on the logit of the mean, for scores between 0 and 1. "t": Student's t, for
            paired gains. "percentile": the bootstrap of the records, too narrow for few images, and without the
            limit of five.
        groups: (N,) what each image belongs to, such as its patient or video sequence. Images of a group are alike, so
            the spread is that between groups, and five groups are needed.
    Raises:
        DataError: no values, one that is not finite, or with "logit-t" one that is not between 0 and 1.
        ShapeError: not as many groups as values.
        ConfigError: an unknown method, or "percentile" with groups.
    Source: Liang and Zeger, Biometrika 1986, doi:10.1093/biomet/73.1.13, times G/(G - 1) for G groups.

    >>> print(mean_interval([0.9, 0.8, 0.95, 0.85, 0.9]))
    0.880 [0.790, 0.935]
    """
    if method == "percentile" and groups is None:
        return bootstrap_mean(values)
    if method not in ("logit-t", "t"):
        raise ConfigError(f"method {method!r} is unknown or takes no groups: use logit-t or t")
    values = _finite(values)
    if groups is not None and len(groups) != len(values):
        raise ShapeError(f"{len(values)} values need a group each, got {len(groups)}")
    if method == "logit-t" and not (values.min() >= 0 and values.max() <= 1):
        raise DataError(f"logit-t is for scores between 0 and 1, got {values.min():.3g} to {values.max():.3g}: use t")
    mean = float(values.mean())
    labels = np.arange(len(values)) if groups is None else pd.factorize(np.asarray(groups, dtype=object))[0]
    count = int(labels.max()) + 1
    if count < FEWEST:
        return Interval(mean, np.nan, np.nan)
    if np.ptp(values) == 0:
        return Interval(mean, mean, mean)
    sums = np.bincount(labels, weights=values - mean)  # of a group; with one image a group this is s / sqrt(N)
    error = np.sqrt(count / (count - 1) * (sums**2).sum()) / len(values)
    reach = stats.t.ppf([0.025, 0.975], count - 1) * error
    ends = mean + reach if method == "t" else special.expit(special.logit(mean) + reach / (mean * (1 - mean)))
    return Interval(mean, *ends.tolist())


def bootstrap_mean(values: ArrayLike, *, seed: int = 0) -> Interval:
    """Mean of `values` with its 95 % percentile bootstrap interval; of equal values, or a single one, without width.

    The intervals of the records in `notebooks/results` are of this kind; `mean_interval` covers better.

    Args:
        values: (N,) float, one a case.
        seed: of the 10,000 resamples.
    Raises:
        DataError: no values, or one that is not finite.
    """
    values = _finite(values)
    mean = float(values.mean())
    if np.ptp(values) == 0:
        return Interval(mean, mean, mean)
    how = {"n_resamples": 10_000, "batch": 1000, "method": "percentile"}  # batch bounds memory
    low, high = stats.bootstrap((values,), np.mean, **how, rng=np.random.default_rng(seed)).confidence_interval
    return Interval(mean, float(low), float(high))


def _finite(values: ArrayLike) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.size == 0 or not np.isfinite(values).all():
        raise DataError(f"a mean needs finite values: of {values.size}, {np.isfinite(values).sum()} are finite")
    return values


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
