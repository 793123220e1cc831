"""The few exceptions of the package. Each message says what is wrong, where, and what to do about it."""

from collections.abc import Collection, Iterable
from itertools import islice


class MedsamError(Exception):
    """Base of every error this package raises on purpose; the command line prints it as one line."""


class DataError(MedsamError):
    """An image, a mask or a data folder cannot be used as it is; `problem` is its kind, as the audit lists it."""

    def __init__(self, message: str, problem: str = "unreadable") -> None:
        super().__init__(message)
        self.problem = problem


class CheckpointError(MedsamError):
    """A checkpoint is missing, damaged, of the wrong kind, or cannot be fetched."""


class StoreError(MedsamError):
    """An embedding store belongs to another model or preprocessing, or is damaged beyond a rebuild."""


class PromptError(MedsamError, ValueError):
    """A box or point is malformed or lies outside its image."""


class ShapeError(MedsamError, ValueError):
    """Two arrays that must agree in shape do not."""


class ConfigError(MedsamError, ValueError):
    """A setting has a value that is not allowed; the message lists those that are."""


class TrainingError(MedsamError):
    """Training cannot go on; what it reached before is kept."""


def check_known(what: str, name: object, known: Iterable[str]) -> None:
    """Raise a `ConfigError` that lists the known names where `name` is none of them."""
    if name not in (names := list(dict.fromkeys(known))):
        raise ConfigError(f"{what} {name!r} is unknown: use {', '.join(names)}")


def some(names: Collection[str]) -> str:
    """The first three names, and dots where there are more."""
    return ", ".join(islice(names, 3)) + ", ..." * (len(names) > 3)


def one_line(error: BaseException, limit: int = 300) -> str:
    """What an error of a library says, on one line; its name where it says nothing."""
    return (" ".join(str(error).split()) or type(error).__name__)[:limit].rstrip(".")
