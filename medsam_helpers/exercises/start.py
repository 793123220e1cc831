"""Checkers of notebook 00, start here."""

import numpy as np
import pandas as pd

from medsam_helpers.exercises.checking import Answer, Hints, checker


@checker("00.2")
def _who_got_worse(answer: Answer) -> Hints:
    dice = {"b": (0.80, 0.70), "a": (0.90, 0.85), "d": (0.60, 0.30), "c": (0.50, 0.95), "e": (0.70, 0.70)}
    rows = [
        {"case": case, "model": model, "prompt": prompt, "dice": value}
        for case, pair in dice.items()
        for prompt, values in (("exact", pair), ("j20", pair[::-1]))
        for model, value in zip(("zero-shot", "tuned", "box"), (*values, 0.1), strict=True)
    ]
    found = "".join(map(str, answer(pd.DataFrame(rows).sample(frac=1, random_state=0), "exact")))
    if found != "dba":
        hints = {"abd": "the largest loss comes first", "c": "these gained", "abde": "e is as good as it was"}
        yield hints.get("".join(sorted(found)), "take tuned minus zero-shot under the one prompt; keep what is below 0")


@checker("00.3")
def _one_mask_of_several(answer: Answer) -> Hints:
    masks = np.zeros((3, 4, 6), np.uint8)
    masks[0, 1:3, 1:4] = masks[1, 2:4, 3:5] = 255
    masks[2, 2, 3:6] = 1  # saved by another tool, and over both others
    expected, found = masks.any(axis=0), np.asarray(answer(list(masks)))
    if found.shape != expected.shape or found.dtype != np.bool_:
        yield f"give back one bool mask of shape {expected.shape}, this is {found.dtype} {found.shape}"
    if np.array_equal(found, masks.sum(axis=0, dtype=np.uint8) > 0):
        yield "where 255 and 1 meet there is a hole: 255 + 1 is 0 in eight bits"
    if np.array_equal(found, masks.max(axis=0) > 127):
        yield "the third mask was saved as 0 and 1: what exceeds half of the file's own full scale is lesion"
    if not np.array_equal(found, expected):
        yield "a pixel is lesion if it is lesion in one of the masks at least"
