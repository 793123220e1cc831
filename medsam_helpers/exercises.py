"""Checkers of the notebooks' exercises: each answer is correct, or gets a hint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from medsam_helpers.errors import ConfigError
from medsam_helpers.geometry import Frame
from medsam_helpers.losses import dice_loss, focal_loss

Checker = Callable[[Any], str | None]
"""Takes an answer; returns a hint, or None if the answer is right."""
CHECKERS: dict[str, Checker] = {}


class _NotAttemptedError(Exception):
    """The answer is a stub still."""


def check(exercise: str, answer: Any) -> None:
    """Print what the checker says of an answer: correct, not yet with a hint, or not attempted yet.

    Args:
        exercise: its number, such as "01.2".
        answer: a value or a function. None, and a function that returns None or raises NotImplementedError, count as
            not attempted.
    Raises:
        ConfigError: no exercise of that number.

    >>> check("01.1", None)
    01.1: not attempted yet
    """
    if exercise not in CHECKERS:
        raise ConfigError(f"exercise {exercise!r} is unknown: use one of {', '.join(sorted(CHECKERS))}")
    try:
        hint = CHECKERS[exercise](_attempted(answer))
    except _NotAttemptedError:
        print(f"{exercise}: not attempted yet")
    else:
        print(f"{exercise}: correct" if hint is None else f"{exercise}: not yet: {hint}")


def _attempted(answer: Any) -> Any:
    """The answer; a function in such a wrapping that a checker that calls it learns of a stub."""
    if answer is None:
        raise _NotAttemptedError
    if not callable(answer):
        return answer

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            result = answer(*args, **kwargs)
        except NotImplementedError as error:
            raise _NotAttemptedError from error
        return _attempted(result)

    return call


def _checker(exercise: str) -> Callable[[Checker], Checker]:
    def register(function: Checker) -> Checker:
        CHECKERS[exercise] = function
        return function

    return register


def _near(answer: Any, value: float, tolerance: float) -> bool:
    """Whether the answer is a number (a tensor of one will do) that close to the value."""
    try:
        return abs(float(answer) - value) <= tolerance
    except (TypeError, ValueError, RuntimeError):  # the last from a tensor of several numbers
        return False


# 01 Segmentation losses


def _random_masks() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and targets of three images, the last without a lesion."""
    generator = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(3, 1, 8, 8, generator=generator)
    target = (torch.rand(3, 1, 8, 8, generator=generator) > 0.7).float()
    target[2] = 0
    return logits, target


@_checker("01.1")
def _balancing_alpha(answer: Any) -> str | None:
    if _near(answer, 0.02, 1e-3):
        return "that is the weight of the background: alpha is the lesion's"
    if not _near(answer, 0.98, 1e-3):
        return "with p = 0.5 everywhere, alpha times the lesion's share must equal (1 - alpha) times the background's"
    return None


@_checker("01.2")
def _tversky(answer: Callable[..., torch.Tensor]) -> str | None:
    logits, target = _random_masks()
    even = answer(logits, target, 0.5, 0.5)
    if not _near(even, dice_loss(logits, target).item(), 1e-3):
        return "with both weights 0.5 it must equal dice_loss: sum within each image, then take the mean over the batch"
    probability = logits.sigmoid()
    hit, false_alarm, miss = (
        part.sum((1, 2, 3)) for part in (probability * target, probability * (1 - target), (1 - probability) * target)
    )
    expected = 1 - ((hit + 1e-5) / (hit + 0.3 * false_alarm + 0.7 * miss + 1e-5)).mean()
    if not _near(answer(logits, target, 0.3, 0.7), expected.item(), 1e-3):
        return "the third argument weighs false alarms, p (1 - t), and the fourth misses, (1 - p) t"
    return None


@_checker("01.3")
def _repaired_focal(answer: Callable[..., torch.Tensor]) -> str | None:
    logits, target = _random_masks()
    if not _near(answer(logits, target), focal_loss(logits, target, alpha=None, gamma=2.0).item(), 1e-4):
        return "the factor (1 - p_t)^2 belongs to each pixel, so it must be applied before the mean is taken"
    return None


# 02 Explore the dataset


@_checker("02.1")
def _rows_of_padding(answer: Any) -> str | None:
    if _near(answer, 144, 0.5):
        return "those are the rows that the image takes: the others are padding"
    if _near(answer, 448, 0.5):
        return "that is in the model frame: a row of the mask frame stands for four of those"
    if not _near(answer, 112, 0.5):
        return "scale the long side to 1024, see how high the image gets, then divide by four"
    return None


@_checker("02.2")
def _back_to_the_original(answer: Callable[..., Any]) -> str | None:
    for height, width in ((1080, 1920), (1000, 500), (256, 256)):
        x, y = map(float, answer(40, 100, height, width))
        right_x, right_y = Frame((height, width)).to_original([(100 + 0.5) * 4, (40 + 0.5) * 4])
        pixel = max(height, width) / 1024
        if max(abs(x - right_y), abs(y - right_x)) <= pixel:
            return "x comes from the column and y from the row"
        if max(abs(x - right_x + 2 * pixel), abs(y - right_y + 2 * pixel)) <= pixel:
            return "that is the cell's upper left corner: its centre lies half a cell further"
        if max(abs(x - right_x), abs(y - right_y)) > pixel:
            return "both directions share one scale, 1024 over the long side; one scale for each is the frame bug"
    return None


@_checker("02.3")
def _split_by_patient(answer: Callable[..., Any]) -> str | None:
    for seed, count in enumerate((5, 30, 200)):
        rng = np.random.default_rng(seed)
        images = rng.permutation(np.repeat(np.arange(count), rng.integers(1, 9, count)))
        patients = [f"patient-{number}" for number in images]
        held_out = np.asarray(answer(list(patients), np.random.default_rng(seed)))
        if held_out.shape != (len(patients),) or held_out.dtype != np.bool_:
            return f"give back {len(patients)} booleans, one an image in the order they came: True means validation"
        both = set(np.array(patients)[held_out]) & set(np.array(patients)[~held_out])
        if both:
            return f"{len(both)} of {count} patients are on both sides: draw patients, then look up their images"
        if not 0.05 <= held_out.mean() <= 0.5:
            return f"{held_out.mean():.0%} of the images are held out: take about a fifth of the patients, at least one"
    return None
