"""Ask a checker about an answer: it is correct, gets a hint, or was not attempted yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from medsam_helpers.errors import ConfigError

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


def checker(exercise: str) -> Callable[[Checker], Checker]:
    """Decorator: this function checks the exercise of that number."""

    def register(function: Checker) -> Checker:
        CHECKERS[exercise] = function
        return function

    return register


def near(answer: Any, value: float, tolerance: float) -> bool:
    """Whether the answer is a number (a tensor of one will do) that close to the value."""
    try:
        return abs(float(answer) - value) <= tolerance
    except (TypeError, ValueError, RuntimeError):  # the last from a tensor of several numbers
        return False
