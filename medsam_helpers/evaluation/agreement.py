"""Does one number say what another says? Areas against the reference's, a model's own IoU score against the measured.

A correlation cannot answer that: it is the same if every area is doubled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from medsam_helpers.errors import DataError, ShapeError
from medsam_helpers.evaluation.tables import bootstrap_mean

_NORMAL_95 = 1.96


class Agreement(NamedTuple):
    """Limits of agreement: the mean difference and the range that holds 95 % of single differences.

    `bias_ci`, `low_ci` and `high_ci` are the 95 % intervals of the three. All are ratios if ratios were asked for.

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


def limits_of_agreement(
    reference: Sequence[float] | np.ndarray, measured: Sequence[float] | np.ndarray, *, ratio: bool = False
) -> Agreement:
    """How far a single measurement may lie from the reference: `bias +- 1.96 s` of the differences.

    The limits take the differences for normal, with one spread over the whole range. Where it grows with the size,
    as with areas, take ratios: the same on logarithms, taken back.

    Args:
        reference: (N,) float.
        measured: (N,) float, of the same cases in the same order.
        ratio: `measured / reference` in place of `measured - reference`.
    Raises:
        ShapeError: not two lists of one length.
        DataError: fewer than three cases, a value that is not finite, or a ratio with one that is not positive.
    Source: Bland and Altman, Lancet 1986, doi:10.1016/S0140-6736(86)90837-8; the intervals of the limits: Statistical
        Methods in Medical Research 1999, doi:10.1177/096228029900800204, section 2.2.

    >>> print(limits_of_agreement([1, 2, 3, 4], [2, 2, 4, 4]))
    0.50, limits -0.63 to 1.63
    """
    pair = np.asarray(reference, np.float64), np.asarray(measured, np.float64)
    if pair[0].shape != pair[1].shape or pair[0].ndim != 1:
        raise ShapeError(f"agreement needs two lists of one length, got shapes {pair[0].shape} and {pair[1].shape}")
    if len(pair[0]) < 3 or not np.isfinite(pair).all():
        raise DataError(f"agreement needs three finite pairs or more, got {np.isfinite(pair).all(axis=0).sum()}")
    if ratio and np.min(pair) <= 0:
        raise DataError("a ratio needs positive values: leave out empty masks, and say how many there were")
    if ratio:
        pair = np.log(pair[0]), np.log(pair[1])
    differences = pair[1] - pair[0]
    count, bias, spread = len(differences), differences.mean(), differences.std(ddof=1)
    low, high = bias - _NORMAL_95 * spread, bias + _NORMAL_95 * spread
    t = stats.t.ppf(0.975, count - 1)
    of_bias = t * spread / np.sqrt(count)
    of_limit = t * spread * np.sqrt(1 / count + _NORMAL_95**2 / (2 * (count - 1)))
    values = [bias, low, high, bias - of_bias, bias + of_bias]
    values += [low - of_limit, low + of_limit, high - of_limit, high + of_limit]
    v = [float(np.exp(value) if ratio else value) for value in values]
    return Agreement(v[0], v[1], v[2], (v[3], v[4]), (v[5], v[6]), (v[7], v[8]))


def calibration_table(
    score: Sequence[float] | np.ndarray, truth: Sequence[float] | np.ndarray, groups: int = 5
) -> pd.DataFrame:
    """What was promised and what was delivered, in groups of as many cases each.

    Args:
        score: (N,) float, the model's own guess of its IoU.
        truth: (N,) float, the measured IoU.
        groups: at most so many, in order of the score.
    Returns:
        One row a group: `n`, mean `score`, mean `truth` with its 95 % bootstrap interval `low` to `high`, and `gap`
        (score minus truth; above 0 is overconfident).
    Raises:
        ShapeError: not two lists of one length.
        DataError: no case, or a value that is not finite.

    >>> calibration_table([0.9, 0.7, 0.8, 1.0], [0.7, 0.5, 0.8, 0.8], groups=2).round(2)[["score", "truth", "gap"]]
       score  truth  gap
    0   0.75   0.65  0.1
    1   0.95   0.75  0.2
    """
    score, truth = np.asarray(score, np.float64), np.asarray(truth, np.float64)
    if score.shape != truth.shape or score.ndim != 1:
        raise ShapeError(f"calibration needs two lists of one length, got shapes {score.shape} and {truth.shape}")
    if score.size == 0 or not np.isfinite([score, truth]).all():
        raise DataError("calibration needs a finite score and a finite truth for each case (baselines have no score)")
    order = np.argsort(score, kind="stable")
    rows = []
    for part in np.array_split(order, min(groups, len(order))):
        delivered = bootstrap_mean(truth[part])
        row = {"n": len(part), "score": score[part].mean(), "truth": delivered.mean}
        rows.append(row | {"low": delivered.low, "high": delivered.high})
    table = pd.DataFrame(rows)
    return table.assign(gap=table["score"] - table["truth"])
