"""`Settings`: values that are declared once, from which command line, environment, cards and identities follow."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from medsam_helpers.errors import ConfigError


def split_words(value: Any) -> Any:
    """Text in one word, "a,b", as the tuple that it stands for on a command line and in the environment."""
    return tuple(word.strip() for word in value.split(",")) if isinstance(value, str) else value


BoxMode = Literal["union", "components", "labels"]
"""How many boxes a mask gets, see `mask_to_boxes`: one, one a component, one a label."""
Words = Annotated[tuple[str, ...], BeforeValidator(split_words)]


class Settings(BaseModel):
    """Frozen, checked values; a subclass declares each with type, default, limits, and its help in the line below.

    Text is read where a number, a switch or a path is declared, so that every way in takes and refuses the same.

    Raises:
        ConfigError: names the setting, what is wrong with its value, and what is allowed.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        arbitrary_types_allowed=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )
    LABELS: ClassVar[tuple[str, ...]] = ()
    """Settings that describe the others and change no result."""

    def __init__(self, **values: Any) -> None:
        paths = {name: str(value) for name, value in values.items() if isinstance(value, Path)}
        try:
            super().__init__(**values | paths)
        except ValidationError as error:
            raise ConfigError(_told(error, type(self).model_fields)) from None

    def but(self, **changes: Any) -> Self:
        """A copy with some values changed; those that are None are left as they are."""
        return type(self)(**dict(self) | {name: value for name, value in changes.items() if value is not None})

    def identity(self) -> dict[str, Any]:
        """What differs from the defaults, as JSON holds it: equal for two runs that are the same."""
        default_of = {name: field.default for name, field in type(self).model_fields.items() if name not in self.LABELS}
        return {name: self.plain(value) for name, value in self if name in default_of and value != default_of[name]}

    def as_dict(self) -> dict[str, Any]:
        """All values, as JSON holds them: for cards."""
        return {name: self.plain(value) for name, value in self}

    @staticmethod
    def plain(value: Any) -> Any:
        """A value as JSON holds it: tuples are lists."""
        return list(value) if isinstance(value, tuple) else value


def _told(error: ValidationError, known: Mapping[str, Any]) -> str:
    """The first mistake in one line."""
    found = error.errors(include_url=False)
    # Of a choice that may also be a function, what was meant is the choice.
    of_name = [each for each in found if each["loc"][:1] == found[0]["loc"][:1]]
    first = next((each for each in of_name if each["type"] == "literal_error"), of_name[0])
    name, value = str(next(iter(first["loc"]), "")), first["input"]
    say: dict[str, Callable[[], str]] = {
        "extra_forbidden": lambda: f"{name} is unknown: use {', '.join(known)}",
        "missing": lambda: f"{name} is missing",
        "value_error": lambda: str(first["ctx"]["error"]),
        "literal_error": lambda: f"{name} {value!r} is unknown: use {first['ctx']['expected'].replace(chr(39), '')}",
    }
    message = say.get(first["type"], lambda: f"{name} {first['msg'].replace('Input should', 'must')}, is {value!r}")()
    return message[:1000]
