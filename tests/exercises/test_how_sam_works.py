"""Checkers of notebook 03: a right answer is correct, each kind of wrong one gets its hint."""

import numpy as np
import torch
from scipy import ndimage
from verdicts import says


def stability(logits, offset):
    return ((logits > offset).sum() / (logits > -offset).sum()).item()


def largest_mistake(prediction, truth):
    wrong, _ = ndimage.label(prediction != truth)
    return wrong == np.bincount(wrong.ravel())[1:].argmax() + 1


def next_click(prediction, truth):
    depth = ndimage.distance_transform_edt(np.pad(largest_mistake(prediction, truth), 1))[1:-1, 1:-1]
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    return x, y, truth[y, x]


def first_pixel(prediction, truth, largest=False):
    y, x = np.argwhere(largest_mistake(prediction, truth) if largest else prediction != truth)[0]
    return x, y, int(truth[y, x])


test_what_is_said_of_an_answer = says(
    ("03.1", torch.tensor(1.71875), "correct"),
    ("03.1", 3.44, "float32"),
    ("03.2", stability, "correct"),
    ("03.2", lambda logits, offset: (logits > offset).sum() / (logits > 0).sum(), "mask at 0"),
    ("03.2", lambda logits, offset: (logits > offset).float().mean(), "count the pixels"),
    ("03.2", lambda logits, offset: stability(logits, 1.0), "second argument"),
    ("03.3", next_click, "correct"),
    ("03.3", lambda *given: (0, 0, 0), "prediction is right"),
    ("03.3", lambda *given: (60, 3, 0), "outside the image"),
    ("03.3", first_pixel, "larger mistake"),
    ("03.3", lambda *given: first_pixel(*given, largest=True), "at the rim"),
    ("03.3", lambda *given: (*next_click(*given)[:2], 1), "label is 0"),
)
