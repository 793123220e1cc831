"""Intervals of a mean: scipy as oracle, too few images, clustered images, and what the benchmark says of them."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit, logit

from medsam_helpers.errors import ConfigError, DataError, ShapeError
from medsam_helpers.evaluation.intervals import Interval, mean_interval
from medsam_helpers.runs.findings import COVERAGE
from medsam_helpers.runs.recorded import bootstrap_mean

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "interval_coverage.py"
VALUES = np.random.default_rng(5).beta(8, 1, size=12)


def test_t_and_logit_t_agree_with_scipy():
    mean, low, high = mean_interval(VALUES, "t")
    expected = stats.ttest_1samp(VALUES, 0).confidence_interval()
    assert (mean, low, high) == pytest.approx((VALUES.mean(), expected.low, expected.high))
    # 0.6, 0.7, 0.8, 0.9, 1.0: mean 0.8, s / sqrt(5) = 0.0707; on the logit scale divided by 0.8 x 0.2.
    reach = 2.776445 * 0.02**0.5 / 2 / 0.16
    found = mean_interval([0.6, 0.7, 0.8, 0.9, 1.0])
    assert found == pytest.approx((0.8, expit(logit(0.8) - reach), expit(logit(0.8) + reach)), abs=1e-6)
    assert mean_interval([1, 1, 1, 1, 0.2]).high < 1, "a score cannot be above 1, its mean's interval neither"


def test_percentile_is_the_bootstrap_of_the_records():
    mean, low, high = bootstrap_mean(VALUES)
    draws = np.random.default_rng(99).choice(VALUES, (20_000, len(VALUES))).mean(axis=1)
    assert (low, high) == pytest.approx(np.percentile(draws, [2.5, 97.5]), abs=0.003)
    assert mean == VALUES.mean()
    assert bootstrap_mean(VALUES) == (mean, low, high) != bootstrap_mean(VALUES, seed=1)
    assert bootstrap_mean([0.25] * 7) == mean_interval([0.25] * 7) == (0.25, 0.25, 0.25)


def test_below_five_images_there_is_a_mean_and_no_interval():
    found = mean_interval([0.5, 0.6, 0.7, 0.8])
    assert found.mean == pytest.approx(0.65)
    assert np.isnan(found[1:]).all()
    assert found.for_json() == [0.65, None, None]
    assert Interval(0.1, -0.02, 0.3).text("+.2f") == "+0.10 [-0.02, +0.30]"


def test_images_of_a_group_count_as_the_group_does():
    per_group = np.random.default_rng(1).normal(size=(6, 4))
    groups = [f"sequence {i}" for i in range(6) for _ in range(4)]
    expected = stats.ttest_1samp(per_group.mean(axis=1), 0).confidence_interval()  # of groups as large as each other
    assert mean_interval(per_group.ravel(), "t", groups=groups)[1:] == pytest.approx(tuple(expected))
    alone = mean_interval(VALUES, "t", groups=range(12))
    assert alone == pytest.approx(mean_interval(VALUES, "t"))
    assert np.isnan(mean_interval(per_group.ravel(), "t", groups=[i % 4 for i in range(24)]).low), "four groups"


@pytest.mark.parametrize(
    ("values", "options", "error", "match"),
    [
        ([], {}, DataError, "of 0, 0 are finite"),
        ([0.5, np.nan], {}, DataError, "of 2, 1 are finite"),
        ([0.1, -0.2, 0.3, 0.4, 0.5], {}, DataError, "between 0 and 1, got -0.2 to 0.5: use t"),
        (VALUES, {"groups": [1, 2]}, ShapeError, "12 values need a group each, got 2"),
        (VALUES, {"method": "bca"}, ConfigError, "'bca' is unknown: use logit-t, t"),
    ],
)
def test_what_has_no_interval_is_refused(values, options, error, match):
    with pytest.raises(error, match=match):
        mean_interval(values, **options)


def test_the_benchmark_draws_the_intervals_of_the_package_and_agrees_with_the_printed_coverage():
    benchmark = runpy.run_path(str(BENCHMARK))
    rng = np.random.default_rng(0)
    found = benchmark["intervals"](np.stack([VALUES, 1 - VALUES / 2]), 4000, rng)
    for method, ends in (("t", found["t"]), ("logit-t", found["logit_t"])):
        assert tuple(ends[:, 0]) == pytest.approx(mean_interval(VALUES, method)[1:])
    how = {"n_resamples": 4000, "rng": rng}
    for method in ("percentile", "bca"):
        expected = stats.bootstrap((VALUES,), np.mean, method=method, **how).confidence_interval
        assert tuple(found[method][:, 0]) == pytest.approx(tuple(expected), abs=0.006)

    known = list(benchmark["populations"]("j20"))
    for kind, method, name in (("dice", "logit-t", "logit_t"), ("gain", "t", "t")):
        chosen = [scores for which, scores in known if which == kind]
        shares = []
        for scores in chosen:
            low, high = benchmark["intervals"](rng.choice(scores, (200, 8)), 2, rng)[name]
            shares.append(((low <= scores.mean()) & (scores.mean() <= high)).mean())
        assert np.mean(shares) == pytest.approx(COVERAGE[method][8], abs=0.025)
