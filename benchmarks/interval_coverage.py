"""How often a 95 % interval of a mean holds the true mean, by number of images: one JSON line for each kind and n.

The recorded scores of each model on real images, averaged over its seeds and folds by image, stand for all images there
are. Samples are drawn from them with replacement, and each method gives an interval for each sample: `percentile` and
`bca` bootstrap, `t` (Student's), `logit_t` (Student's on the logit of the mean), and `studentized` (bootstrap of the
t statistic). For gains (`paired_gain`) the population is the differences in Dice to the zero-shot model on the same
image. The lines give the mean of the coverage over the populations, the lowest of them, and the median width.

    python benchmarks/interval_coverage.py [--samples N] [--resamples N]
"""
# make bench: --samples 200 --resamples 400

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

import numpy as np
from scipy import special, stats

from medsam_helpers.evaluation.predictors import BASELINES
from medsam_helpers.runs.experiments import RESULTS
from medsam_helpers.runs.recorded import runs_as_models

RECORDS = [("kvasir-official", "kvasir"), ("kvasir-tta", "kvasir"), ("specialist", "kvasir"), ("specialist", "busi")]
RECORDS += [("busi-folds", "busi"), ("across", "kvasir"), ("across", "busi")]
SIZES = (3, 5, 8, 15, 27, 60)
ENDS = np.array([0.025, 0.975])


def populations(prompt: str) -> Iterator[tuple[str, np.ndarray]]:
    """Kind, "dice" or "gain", and (N,) scores of the images of one record, for each model that gets a box."""
    for record, tested_on in RECORDS:
        table = runs_as_models(RESULTS / record, tested_on)
        table = table[(table["prompt"] == prompt) & ~table["model"].isin([*BASELINES, "U-Net without box"])]
        by_case = table.groupby(["case", "model"])["dice"].mean().unstack()
        base = by_case["mobile-sam zero-shot"]
        for model, scores in by_case.items():
            yield "dice", scores.to_numpy()
            if model != base.name:
                yield "gain", (scores - base).to_numpy()


def intervals(samples: np.ndarray, resamples: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Low and high end of each sample's interval, (2, S), by method; `samples` is (S, n)."""
    count, n = samples.shape
    mean, error = samples.mean(axis=1), samples.std(axis=1, ddof=1) / np.sqrt(n)
    drawn = samples[np.arange(count)[:, None, None], rng.integers(n, size=(count, resamples, n))]
    means = drawn.mean(axis=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        shifted = (means - mean[:, None]) / (drawn.std(axis=2, ddof=1) / np.sqrt(n))
    shifted[~np.isfinite(shifted)] = 0
    reach = stats.t.ppf(ENDS, n - 1)[:, None]
    found = {"percentile": np.quantile(means, ENDS, axis=1), "bca": _bca(samples, means), "t": mean + reach * error}
    found["studentized"] = mean - np.quantile(shifted, ENDS[::-1], axis=1) * error
    if samples.min() >= 0:  # a gain has no logit
        middle = np.clip(mean, 1e-6, 1 - 1e-6)
        found["logit_t"] = special.expit(special.logit(middle) + reach * error / (middle * (1 - middle)))
    return found


def _bca(samples: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Bias-corrected and accelerated; Source: Efron, JASA 1987, doi:10.1080/01621459.1987.10478410."""
    below = (means < samples.mean(axis=1)[:, None]).mean(axis=1)
    bias = stats.norm.ppf(np.clip(below, 1 / means.shape[1], 1 - 1 / means.shape[1]))
    centred = samples - samples.mean(axis=1, keepdims=True)  # what the jackknife gives for a mean
    spread = (centred**2).sum(axis=1) ** 1.5
    skew = np.divide((centred**3).sum(axis=1), 6 * spread, out=np.zeros(len(samples)), where=spread > 0)
    shift = bias + stats.norm.ppf(ENDS)[:, None]
    shares = stats.norm.cdf(bias + shift / (1 - skew * shift))
    places = np.rint(shares * (means.shape[1] - 1)).astype(int)
    return np.take_along_axis(np.sort(means, axis=1), places.T, axis=1).T


def main() -> None:
    """Draw, count, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=500, help="of each population and n")
    parser.add_argument("--resamples", type=int, default=400, help="of each sample")
    parser.add_argument("--prompt", default="j20")
    args = parser.parse_args()
    known, rng = list(populations(args.prompt)), np.random.default_rng(0)
    for kind in ("dice", "gain"):
        chosen = [scores for which, scores in known if which == kind]
        for n in SIZES:
            covered: dict[str, list[float]] = {}
            width: dict[str, list[float]] = {}
            for scores in chosen:
                for method, (low, high) in intervals(
                    rng.choice(scores, (args.samples, n)), args.resamples, rng
                ).items():
                    covered.setdefault(method, []).append(((low <= scores.mean()) & (scores.mean() <= high)).mean())
                    width.setdefault(method, []).append(np.median(high - low))
            line: dict[str, object] = {"kind": kind, "n": n, "populations": len(chosen)}
            for name, by_method, of in (
                ("coverage", covered, np.mean),
                ("lowest", covered, min),
                ("width", width, np.median),
            ):
                line[name] = {method: round(float(of(values)), 3) for method, values in by_method.items()}
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
