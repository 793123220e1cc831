"""Do two measurements agree? Bland and Altman's limits of agreement, and their picture."""

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import ArrayLike
from scipy import stats

from medsam_helpers.errors import DataError
from medsam_helpers.figures.scores import model_styles, paired


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


def bland_altman(
    ax: Axes, reference: np.ndarray, measured: np.ndarray, *, ratio: bool = False, model: str = "tuned", unit: str = ""
) -> Axes:
    """The axes with difference (or ratio) of two measurements (N,) over their mean, with bias and limits of agreement.

    With `ratio`, see `limits_of_agreement`, the axes are logarithmic, and the mean is the geometric one. The points
    take the colour of `model`; `unit` is that of both.

    Source: Bland and Altman, Lancet 1995, doi:10.1016/S0140-6736(95)91748-9: over the mean and not the reference, since
        the difference contains the reference and so is related to it even where nothing is wrong.
    """
    reference, measured = np.asarray(reference, float), np.asarray(measured, float)
    limits = limits_of_agreement(reference, measured, ratio=ratio)
    x = np.sqrt(reference * measured) if ratio else (reference + measured) / 2
    y = measured / reference if ratio else measured - reference
    style = model_styles([model])[model]
    ax.scatter(x, y, s=18, color=style["color"], marker=style["marker"])
    ax.axhline(1 if ratio else 0, color="black", linewidth=1, linestyle=":")
    for value, interval, line in zip(limits[:3], limits[3:], ("-", "--", "--"), strict=True):
        ax.axhline(value, color=style["color"], linewidth=1.4, linestyle=line)
        ax.axhspan(*interval, color=style["color"], alpha=0.12, linewidth=0)
        ax.text(1.01, value, f"{value:.2f}", transform=ax.get_yaxis_transform(), va="center", fontsize=8)
    if ratio:
        ax.set(xscale="log", yscale="log")
        for axis, values in ((ax.xaxis, x), (ax.yaxis, y)):
            decades = np.log10(values.max() / values.min())
            axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 1.5 else (1, 3) if decades < 2.5 else (1,)))
            axis.set_major_formatter("{x:.9g}")
            axis.set_minor_formatter(NullFormatter())
    name = "geometric mean of both" if ratio else "mean of both"
    ax.set(xlabel=f"{name}{', ' + unit if unit else ''}", ylabel="measured / reference" if ratio else "difference")
    return ax
