"""The reader's own parts of a recipe (placeholder until the training branch is merged)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def source_identity(part: Callable[..., Any]) -> Any:
    """The source of a function."""
    return getattr(part, "version", None) or inspect.getsource(part)
