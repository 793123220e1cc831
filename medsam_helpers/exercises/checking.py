"""What is said of an answer to an exercise: it is correct, gets a hint, or was not attempted yet."""

import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from medsam_helpers.errors import ConfigError

Answer = Any  # the reader's: a number, or a function where the exercise asks for one
Hints = Iterator[str]  # what a checker yields: hints, of which the first is shown; none for a right answer
Known = Sequence[tuple[Any, str]]  # wrong answers that are known, each with its hint
Checker = Callable[[Answer], Hints]
_MODULES: tuple[str, ...] = ("start", "losses", "dataset", "how_sam_works", "finetuning", "evaluation")
_MODULES += ("prompting", "mlops", "what_helped", "beyond", "clicks", "video")
_CHECKERS: dict[str, Checker] = {}


def check(exercise: str, answer: Any) -> None:
    """Print what the checker says of an answer: correct, not yet with a hint, or not attempted yet.

    An answer is a value or a function. None, and a function that returns None or raises NotImplementedError, count as
    not attempted. `ConfigError`: there is no exercise of that number.

    >>> check("01.1", None)
    01.1: not attempted yet
    """
    if exercise not in exercises(exercise[:2]):
        raise ConfigError(f"exercise {exercise!r} is unknown: use one of {', '.join(exercises())}")
    try:
        hint = next(_CHECKERS[exercise](_attempted(answer)), None)
    except NotImplementedError:
        print(f"{exercise}: not attempted yet")
    else:
        print(f"{exercise}: correct" if hint is None else f"{exercise}: not yet: {hint}")


def exercises(notebook: str = "") -> dict[str, Checker]:
    """Checkers by number, of one notebook ("04") or of all; loads their modules."""
    for number, name in enumerate(_MODULES):
        if f"{number:02}".startswith(notebook):
            import_module(f"medsam_helpers.exercises.{name}")
    return {number: found for number, found in sorted(_CHECKERS.items()) if number.startswith(notebook)}


def _attempted(answer: Any) -> Any:
    """The answer; a function in such a wrapping that a checker that calls it learns of a stub."""
    if answer is None:
        raise NotImplementedError
    return (lambda *args: _attempted(answer(*args))) if callable(answer) else answer


def checker(exercise: str) -> Callable[[Checker], Checker]:
    """A decorator: the function checks the exercise of that number."""
    return lambda function: _CHECKERS.setdefault(exercise, function)


def near(answer: Any, value: float, tolerance: float) -> bool:
    """True if the answer is a number (a tensor of one will do) that close to the value."""
    try:
        return abs(float(answer) - value) <= tolerance
    except (TypeError, ValueError, RuntimeError):  # the last from a tensor of several numbers
        return False


def number_hint(answer: Any, right: float, tolerance: float, known: Known, otherwise: str) -> Hints:
    """Nothing for the right number; the hint of the known wrong number that it is near to; else the last one."""
    if not near(answer, right, tolerance):
        # A much larger number than the right one is allowed its rounding too.
        hints = (hint for wrong, hint in known if near(answer, wrong, max(tolerance, wrong / 1000)))
        yield next(hints, otherwise)


def row_hint(answer: Any, right: Sequence[float], tolerance: float, known: Known, otherwise: str) -> Hints:
    """As `number_hint`, of several numbers in a row: the sides of a box, say."""
    found = np.asarray(answer, float).ravel()
    if len(found) != len(right):
        yield f"give back {len(right)} numbers: this has {len(found)}"
    elif not np.allclose(found, right, rtol=0, atol=tolerance):
        yield next((hint for wrong, hint in known if np.allclose(found, wrong, rtol=0, atol=tolerance)), otherwise)


def call_hints(answer: Answer, calls: Sequence[Mapping[str, Any]]) -> Hints:
    """Hints for the first call that a function answers wrongly, as `answers.toml` lists them."""
    for call in calls:
        given, right, otherwise = call["given"], call["right"], call["otherwise"]
        if isinstance(right, bool | str):
            if (said := answer(*given)) != right:
                yield f"{', '.join(map(str, given))} is {right!r}, not {said!r}: {otherwise}"
            continue
        arrays = [np.array(value) if isinstance(value, list) else value for value in given]
        hints: Callable[..., Hints] = row_hint if isinstance(right, list) else number_hint
        yield from hints(answer(*arrays), right, call.get("tolerance", 1e-3), call["known"], otherwise)
        if not all(map(np.array_equal, arrays, given)):
            yield "an array that was handed over has changed: compute a new one"


def interval_hint(answer: Answer, right: tuple[float, float, float], known: Known) -> Hints:
    """Nothing for the right interval; hints for means that other comparisons have, in `known`."""
    try:
        found = np.array([float(value) for value in answer])
    except TypeError:
        found = np.array([])
    if found.shape != (3,):
        yield "give back what `difference` gives: mean, low and high"
    if abs(found[0] + right[0]) < 4e-4:
        yield "the sign: the model in question comes first, what it is compared with second"
    yield from (hint for wrong, hint in known if abs(found[0] - wrong) < 4e-4)
    if abs(found[0] - right[0]) > 4e-4:
        yield "other models, another prompt or another record: read the question's names once more"
    if not np.allclose(found, right, atol=2e-3):
        yield "the mean is right, the interval is not: take the differences image by image, as `difference` does"


def names_hint(answer: Answer, right: Collection[str], known: Known, otherwise: str) -> Hints:
    """Nothing for the right names, in any order; else what is known of a wrong one, or how many there are."""
    found = {answer} if isinstance(answer, str) else set(answer)
    yield from (hint for name, hint in known if name in found)
    if wrong := sorted(found - set(right)):
        yield f"{wrong[0]}: {otherwise}"
    if missing := len(set(right) - found):
        yield f"{missing} more: the size of a difference is not asked, only whether its interval leaves out zero"


ANSWERS = tomllib.loads(Path(__file__).with_name("answers.toml").read_text(encoding="utf-8"))
"""Kind of answer (numbers, calls, ...) -> exercise -> what the checker of this kind takes beside the answer."""
for _exercise, _calls in ANSWERS["calls"].items():
    checker(_exercise)(partial(call_hints, calls=_calls))
_HINTS: dict[str, Callable[..., Hints]] = {"numbers": number_hint, "intervals": interval_hint, "names": names_hint}
for _kind, _hint in _HINTS.items():
    for _exercise, _entry in ANSWERS[_kind].items():
        checker(_exercise)(partial(_hint, **_entry))
