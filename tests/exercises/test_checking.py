"""The check itself: stubs are not attempted, errors reach their author, and one module a notebook is loaded."""

import pytest
from helpers import python

from medsam_helpers.errors import ConfigError
from medsam_helpers.exercises.checking import check


def not_implemented(*args, **kwargs):
    raise NotImplementedError


@pytest.mark.parametrize("answer", [None, lambda *args, **kwargs: None, not_implemented])
@pytest.mark.parametrize("exercise", ["00.1", "01.2", "04.3", "07.1"])
def test_nothing_and_a_stub_are_not_attempted(capsys, exercise, answer):
    check(exercise, answer)
    assert capsys.readouterr().out == f"{exercise}: not attempted yet\n"


def test_an_unknown_number_lists_the_known():
    with pytest.raises(ConfigError, match=r"'01.9' is unknown.*01\.1, 01\.2"):
        check("01.9", 1)


def test_an_error_in_the_answer_reaches_its_author():
    with pytest.raises(ZeroDivisionError):
        check("01.1", lambda logits, target: 1 / 0)


def test_checking_loads_the_module_of_its_notebook_alone():
    code = "import sys; from medsam_helpers.exercises.checking import check; check('00.1', None); print(*sys.modules)"
    found = python(code).split()
    ours = {name for name in found if name.startswith("medsam_helpers.exercises.")}
    assert ours == {"medsam_helpers.exercises.checking", "medsam_helpers.exercises.start"}
    assert "torch" not in found
