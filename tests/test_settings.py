"""One declaration a setting: what is declared once is checked, shown and known on every way in."""

from argparse import ArgumentParser
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from pydantic import Field

from medsam_helpers.cli.parser import add_settings
from medsam_helpers.errors import ConfigError
from medsam_helpers.runs.settings import in_environment
from medsam_helpers.settings import Settings, Words


class Toy(Settings):
    """A class with settings of each kind."""

    LABELS: ClassVar[tuple[str, ...]] = ("name",)

    name: str = "toy"
    """What it is called."""
    steps: int = Field(10, ge=1, le=100)
    """How often."""
    rate_1024: float | None = Field(None, gt=0)
    """How far."""
    kind: Literal["slow", "fast"] = "slow"
    """How."""
    parts: Words = ("all",)
    """What of."""
    loud: bool = False
    """Whether it is heard."""


def on_the_command_line(words: str) -> Toy:
    parser = ArgumentParser()
    add_settings(parser, Toy)
    return Toy(**vars(parser.parse_args(words.split())))


ENVIRONMENT = {"STEPS": "3", "RATE_1024": "0.5", "KIND": "fast", "PARTS": "a,b", "LOUD": "yes", "NAME": ""}
WAYS_IN = {
    "python": lambda: Toy(steps=3, rate_1024=0.5, kind="fast", parts=("a", "b"), loud=True),
    "command line": lambda: on_the_command_line("--steps 3 --rate 0.5 --kind fast --parts a,b --loud"),
    "environment": lambda: Toy(**in_environment(Toy, {f"MEDSAM_{name}": text for name, text in ENVIRONMENT.items()})),
}


@pytest.mark.parametrize("way", WAYS_IN.values(), ids=WAYS_IN)
def test_a_setting_that_is_only_declared_is_taken_on_every_way_in_and_enters_the_identity(way):
    toy = way()
    assert toy == Toy(steps=3, rate_1024=0.5, kind="fast", parts=("a", "b"), loud=True)
    assert toy.identity() == {"steps": 3, "rate_1024": 0.5, "kind": "fast", "parts": ["a", "b"], "loud": True}
    assert toy.as_dict() == {"name": "toy", **toy.identity()}
    assert Toy().identity() == Toy(name="other", steps=10).identity() == {}, "defaults and labels change nothing"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"steps": 0}, "steps must be greater than or equal to 1, is 0"),
        ({"steps": 1.5}, "steps must be a valid integer"),
        ({"rate_1024": float("nan")}, "rate_1024 must be a finite number"),
        ({"kind": "quick"}, "kind 'quick' is unknown: use slow or fast"),
        ({"loud": "maybe"}, "loud must be a valid boolean"),
        ({"stepz": 1}, "stepz is unknown: use name, steps, rate_1024"),
    ],
)
def test_a_wrong_value_is_one_line_with_what_is_allowed(values, said):
    with pytest.raises(ConfigError) as caught:
        Toy(**values)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_but_changes_what_is_given_keeps_the_rest_and_checks():
    assert Toy(steps=4).but(steps=None, loud=True) == Toy(steps=4, loud=True)
    assert Toy().but(name=Path("a") / "b").name == str(Path("a") / "b"), "a path is taken where text is declared"
    with pytest.raises(ConfigError, match="steps must be"):
        Toy().but(steps=-1)


def test_help_says_what_the_declaration_says(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    parser = ArgumentParser()
    add_settings(parser, Toy)
    text = " ".join(parser.format_help().split())
    for said in ("--steps N How often (default: 10)", "--kind {slow,fast} How (default: slow)", "--rate F How far"):
        assert said in text
    assert "--name" not in text
