"""95 % intervals of a mean: of scores, of paired gains, of clustered images."""

from collections.abc import Hashable, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import special, stats

from medsam_helpers.errors import DataError, ShapeError, check_known

Method = Literal["logit-t", "t"]
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
            paired gains.
        groups: (N,) what each image belongs to, such as its patient or video sequence. Images of a group are alike, so
            the spread is that between groups, and five groups are needed.
    Raises:
        DataError: no values, one that is not finite, or with "logit-t" one that is not between 0 and 1.
        ShapeError: not as many groups as values.
        ConfigError: an unknown method.
    Source: Liang and Zeger, Biometrika 1986, doi:10.1093/biomet/73.1.13, times G/(G - 1) for G groups.

    >>> print(mean_interval([0.9, 0.8, 0.95, 0.85, 0.9]))
    0.880 [0.790, 0.935]
    """
    check_known("method", method, get_args(Method))
    values = finite(values)
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


def finite(values: ArrayLike) -> np.ndarray:
    """(N,) float64; `DataError` where there is none, or one that is not finite."""
    values = np.asarray(values, np.float64)
    if values.size == 0 or not np.isfinite(values).all():
        raise DataError(f"a mean needs finite values: of {values.size}, {np.isfinite(values).sum()} are finite")
    return values
