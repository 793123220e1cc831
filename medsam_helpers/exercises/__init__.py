"""Checkers of the notebooks' exercises, one module a notebook, loaded when one of its answers is checked."""

from medsam_helpers.exercises.checking import check

__all__ = ["check"]
