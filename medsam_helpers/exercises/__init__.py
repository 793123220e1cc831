"""Checkers of the notebooks' exercises, one module a notebook."""

from medsam_helpers.exercises import (  # noqa: F401  (importing a module registers its checkers)
    dataset,
    evaluation,
    finetuning,
    how_sam_works,
    losses,
    mlops,
    prompting,
    start,
)
from medsam_helpers.exercises.checking import CHECKERS, check

__all__ = ["CHECKERS", "check"]
