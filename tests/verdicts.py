"""The test that every notebook's checkers share: what `check` prints of right and wrong answers."""

import pytest

from medsam_helpers.exercises.checking import check


def says(*rows):
    """A test of (exercise, answer, part of what is said of it) each."""

    @pytest.mark.parametrize(("exercise", "answer", "verdict"), rows)
    def test(capsys, exercise, answer, verdict):
        check(exercise, answer)
        assert verdict in capsys.readouterr().out

    return test
