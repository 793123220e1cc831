"""Checkers of notebook 05, evaluate the model."""

import numpy as np

from medsam_helpers.evaluation.intervals import limits_of_agreement
from medsam_helpers.exercises.checking import Answer, Hints, checker, number_hint


@checker("05.2")
def _interval_by_patient(answer: Answer) -> Hints:
    for seed, (people, images) in enumerate([(12, 10), (40, 5)]):
        rng = np.random.default_rng(seed)
        per_patient = rng.normal(0.02, 0.05, people)
        order = rng.permutation(people * images)
        patients = np.repeat([f"patient-{i}" for i in range(people)], images)[order]
        gains = np.repeat(per_patient, images)[order]  # all images of a patient alike: they count as one
        low, high = map(float, answer(gains, list(patients), np.random.default_rng(seed)))
        # The bootstrap's variance of a mean is that of the drawn units over their number.
        wide = 2 * 1.96 * per_patient.std() / np.sqrt(people)
        if not low < gains.mean() < high:
            yield f"the interval {low:.3f} to {high:.3f} does not hold the mean gain, {gains.mean():.3f}"
        if high - low < 0.7 * wide:
            yield "too narrow: draw patients, and take all images of each patient that was drawn"
        if high - low > 1.3 * wide:
            yield "too wide for 95 %: take the 2.5th and the 97.5th percentile of some thousand resampled means"


@checker("05.3")
def _rule_card(answer: Answer) -> Hints:
    cases = (
        ((0.01, 0.03, 120, 0.92, 0.83, False), "better", "all of the interval lies above zero"),
        ((-0.03, -0.01, 120, 0.88, 0.83, False), "worse", "all of the interval lies below zero"),
        ((-0.01, 0.03, 120, 0.91, 0.83, False), "open", "the interval holds zero"),
        ((0.0, 0.03, 120, 0.91, 0.83, False), "open", "an interval that ends at zero holds it"),
        ((0.01, 0.03, 120, 0.80, 0.83, False), "box", "the ellipse is better, which comes before the interval"),
        ((0.01, 0.03, 4, 0.80, 0.83, False), "too few", "four images are too few for any interval"),
        ((0.01, 0.03, 4, 0.80, 0.83, True), "used before", "the images chose something, which comes first"),
    )
    for given, right, why in cases:
        if (said := answer(*given)) != right:
            yield f"{given} is {right!r}, not {said!r}: {why}"


@checker("05.4")
def _won_from_the_rest(answer: Answer) -> Hints:
    dice, ellipse = np.array([0.9, 0.95, 0.7]), np.array([0.8, 0.85, 0.75])
    known = {
        ((dice - ellipse) / (1 - ellipse)).mean(): "take the means first: one easy image would outweigh the others",
        dice.mean() - ellipse.mean(): "that is the difference: divide by what the ellipse leaves, one minus its mean",
        dice.mean() / ellipse.mean() - 1: "divide by what the ellipse leaves to win, not by what it has",
    }
    otherwise = "(mean of the model - mean of the ellipse) / (1 - mean of the ellipse)"
    yield from number_hint(answer(dice, ellipse), 0.25, 1e-3, known, otherwise)


@checker("05.5")
def _ratio_limits(answer: Answer) -> Hints:
    rng = np.random.default_rng(5)
    for bias, spread, count in ((1.5, 0.2, 40), (0.9, 0.4, 15)):
        reference = rng.lognormal(2, 1, count)
        measured = reference * rng.lognormal(np.log(bias), spread, count)
        given = np.array([float(value) for value in answer(reference, measured)])
        right = np.array(limits_of_agreement(reference, measured, ratio=True)[:3])
        if given.shape != (3,):
            yield "give back three numbers: bias, lower and upper limit"
        if np.allclose(given, np.log(right), rtol=0.02, atol=0.01):
            yield "those are logarithms still: take them back with exp"
        if not np.isclose(given[0], right[0], rtol=0.02):
            yield "the bias is exp of the mean of log(measured / reference), about 1 where nothing is wrong"
        if given[2] / given[0] < (right[2] / right[0]) ** 0.5:
            yield "too close: the limits are for one case, so no division by the root of n"
        if not np.allclose(given, right, rtol=0.05):
            yield "the limits lie 1.96 standard deviations of the logarithms below and above, then exp"
