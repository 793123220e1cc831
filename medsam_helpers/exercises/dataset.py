"""Checkers of notebook 02, explore the dataset."""

import numpy as np

from medsam_helpers.exercises.checking import Answer, Hints, checker


@checker("02.2")
def _split_by_patient(answer: Answer) -> Hints:
    for seed, count in enumerate((5, 30, 200)):
        rng = np.random.default_rng(seed)
        images = rng.permutation(np.repeat(np.arange(count), rng.integers(1, 9, count)))
        patients = np.array([f"patient-{number}" for number in images])
        held_out = np.asarray(answer(patients.tolist(), np.random.default_rng(seed)))
        if held_out.shape != patients.shape or held_out.dtype != np.bool_:
            yield f"give back {len(patients)} booleans, one an image in the order they came: True means validation"
        if both := set(patients[held_out]) & set(patients[~held_out]):
            yield f"{len(both)} of {count} patients are on both sides: draw patients, then look up their images"
        if not 0.05 <= held_out.mean() <= 0.5:
            yield f"{held_out.mean():.0%} of the images are held out: take about a fifth of the patients, at least one"
