"""Checkers of notebook 00: a right answer is correct, each kind of wrong one gets its hint."""

import numpy as np
from verdicts import says


def to_box(x, y, width, height, shown, original):
    scale = original / shown
    return x * scale, y * scale, (x + width) * scale, (y + height) * scale


def got_worse(scores, prompt):
    dice = scores[scores.prompt == prompt].pivot(index="case", columns="model", values="dice")
    change = (dice["tuned"] - dice["zero-shot"]).sort_values()
    return list(change.index[change < 0])


test_what_is_said_of_an_answer = says(
    ("00.1", to_box, "correct"),
    ("00.1", lambda x, y, width, height, *_: (x, y, x + width, y + height), "pixels of the original"),
    ("00.1", lambda x, y, w, h, *sizes: to_box(x, y, w - x, h - y, *sizes), "width and height still"),
    ("00.1", lambda x, y, w, h, shown, original: to_box(x, y, w, h, original, shown), "other way round"),
    ("00.1", lambda *given: np.add(to_box(*given), [0, 0, 1, 1]), "half-open"),
    ("00.1", lambda *given: 3, "four numbers"),
    ("00.2", got_worse, "correct"),
    ("00.2", lambda *given: got_worse(*given)[::-1], "comes first"),
    ("00.2", lambda *given: [*got_worse(*given), "e"], "as good as it was"),
    ("00.2", lambda *given: list("edbac"), "below 0"),
    ("00.3", lambda masks: np.any([mask > 0 for mask in masks], axis=0), "correct"),
    ("00.3", lambda masks: np.stack(masks) > 0, "bool mask"),
    ("00.3", lambda masks: sum(masks) > 0, "255 + 1 is 0"),
    ("00.3", lambda masks: np.max(masks, axis=0) > 127, "full scale"),
    ("00.3", lambda masks: masks[0] > 0, "in one of the masks"),
)
