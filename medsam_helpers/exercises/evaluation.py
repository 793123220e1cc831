"""Checkers of notebook 05, evaluate the model."""

import numpy as np

from medsam_helpers.exercises.checking import Answer, Hints, checker
from medsam_helpers.figures.agreement import limits_of_agreement


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
