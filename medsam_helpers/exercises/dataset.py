"""Checkers of notebook 02, explore the dataset."""

import numpy as np

from medsam_helpers.exercises.checking import Answer, Hints, checker
from medsam_helpers.geometry import ImageTransform


@checker("02.4")
def _back_to_the_original(answer: Answer) -> Hints:
    for height, width in ((1080, 1920), (1000, 500)):
        found = np.asarray(answer(40, 100, height, width), float)
        right = ImageTransform((height, width)).to_original(np.array([(100 + 0.5) * 4, (40 + 0.5) * 4]))
        pixel = max(height, width) / 1024
        if np.abs(found - right[::-1]).max() <= pixel:
            yield "x comes from the column and y from the row"
        if np.abs(found - right + 2 * pixel).max() <= pixel:
            yield "that is the cell's upper left corner: its centre lies half a cell further"
        if np.abs(found - right).max() > pixel:
            yield "both directions share one scale, 1024 over the long side: one each is the coordinate-space bug"


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
