"""A reader's own loss, optimiser, schedule, augmentation or metric, and what stands for it in a run's identity.

Where a recipe takes the name of one of these, it also takes a callable of the reader's own:

    loss(logits, target)                     (B, 1, h, w) float32 and {0, 1} -> scalar tensor with a gradient
    optimizer(parameters, lr, weight_decay)  -> torch.optim.Optimizer
    schedule(step, total_steps, recipe)      -> learning rate of that step, counted from 0
    augment(features, target, rng)           (C, H, W) float, (h, w) bool, numpy Generator -> both, changed copies
    metric(prediction, reference)            (H, W) bool both, original space -> float, higher is better
"""

from __future__ import annotations

import ast
import dis
import functools
import hashlib
import inspect
import json
import sys
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from pathlib import PurePath
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from medsam_helpers.errors import ConfigError


def source_identity(part: Any) -> Any:
    """The source of a callable and the values that it works with, as JSON holds them.

    Of a function: its source with its name, its defaults, and the values that it reads by name, closed over or global.
    Of a `functools.partial`: function and arguments. Of an object: the methods of its class (of those in underscores
    `__call__` only) and its attributes, arrays and weights by digest. Callables among these values are taken in alike.
    An attribute `version` stands for it all.

    Functions, classes and modules found by a global name, those that a function calls, are NOT followed: when one of
    them changes, the identity stays. Give the caller a `version`, or close over them.

    Args:
        part: from a file or a notebook's cell.
    Returns:
        Text, or a dict; without memory addresses, paths or line numbers.
    Raises:
        ConfigError: the source cannot be read, or a value has no lasting form.

    >>> def loss(logits, target, weight=2.0):
    ...     return weight * (logits - target).abs().mean()
    >>> loss.version = "1"
    >>> source_identity(functools.partial(loss, weight=3.0))
    {'function': {'name': 'loss', 'version': '1'}, 'args': [], 'keywords': {'weight': 3.0}}
    """
    try:
        return json.loads(json.dumps(part, default=_form), parse_constant=str)
    except (TypeError, ValueError) as error:  # keys that are no text, a value that holds itself
        raise error if isinstance(error, ConfigError) else _refusal(f"{part} ({error})") from error


def _form(value: Any) -> Any:
    """What stands for a value that JSON does not know; may hold such values in turn."""
    torch = sys.modules.get("torch")  # while it is not imported, nothing can be of its types
    form: Any = {"class": type(value), "attributes": _attributes(value)}
    if isinstance(value, PurePath | np.dtype) or (torch and isinstance(value, torch.dtype | torch.device)):
        form = str(value)
    elif isinstance(value, ModuleType):
        form = value.__name__
    elif torch and isinstance(value, torch.Tensor):
        data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        form = f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(data).hexdigest()}"
    elif isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
        form = f"{value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
    elif isinstance(value, set | frozenset):
        form = sorted(value, key=repr)
    elif (version := getattr(value, "version", None)) is not None:
        form = {"name": getattr(value, "__qualname__", type(value).__qualname__), "version": str(version)}
    elif isinstance(value, functools.partial):
        form = {"function": value.func, "args": value.args, "keywords": value.keywords}
    elif isinstance(value, MethodType):
        form = {"function": value.__func__, "self": value.__self__}
    elif isinstance(value, FunctionType):
        read = {"defaults": value.__defaults__, "keywords": value.__kwdefaults__, "values": _values_read(value)}
        form = {"source": _source(value)} | {name: one for name, one in read.items() if one}
    elif isinstance(value, type):
        form = {"name": value.__name__, "members": _members(value)}
    return form


def _source(function: FunctionType) -> str:
    """Dedented; of a lambda the expression alone, since its line may hold more."""
    # Of the code object: asked for a function, `inspect` would give what a decorator wraps, and not the decorator.
    code = function.__code__
    with suppress(OSError, SyntaxError):
        if function.__name__ != "<lambda>":
            return textwrap.dedent(inspect.getsource(code))
        tree = ast.parse("".join(inspect.findsource(code)[0]))
        found = [n for n in ast.walk(tree) if isinstance(n, ast.Lambda) and n.lineno == code.co_firstlineno]
        if len(found) == 1:
            return ast.unparse(found[0])
    raise _refusal(function.__qualname__)


def _values_read(function: FunctionType) -> dict[str, Any]:
    """What it reads by name: closed over, or global and neither function, class nor module."""
    values: dict[str, Any] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # not filled yet
            values[name] = cell.cell_contents
    for name in sorted(set(_global_names(function.__code__)) & function.__globals__.keys()):
        value = function.__globals__[name]
        if not (isinstance(value, ModuleType | type) or inspect.isroutine(value)):
            values[name] = value
    return values


def _global_names(code: CodeType) -> Iterator[str]:
    yield from (step.argval for step in dis.get_instructions(code) if step.opname == "LOAD_GLOBAL")
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _global_names(inner)


def _members(kind: type) -> dict[str, Any]:
    """Methods and values of a class, and of those of its bases that stand in the same file or notebook."""
    bases = [base for base in reversed(kind.__mro__) if base.__module__ == kind.__module__]
    found = {name: member for base in bases for name, member in vars(base).items()}
    found = {
        name: member for name, member in found.items() if name == "__call__" or not name.startswith(("__", "_abc"))
    }
    unwrapped = {name: getattr(one, "fget", None) or getattr(one, "__func__", one) for name, one in found.items()}
    if not any(isinstance(member, FunctionType) for member in unwrapped.values()):
        raise _refusal(kind.__qualname__)
    return unwrapped


def _attributes(value: Any) -> dict[str, Any]:
    """Of an object; of a network without what torch keeps in each, such as its hooks."""
    torch, attributes = sys.modules.get("torch"), getattr(value, "__dict__", {})
    of_torch = vars(torch.nn.Module()) if torch and isinstance(value, torch.nn.Module) else {}
    kept = {"_parameters", "_buffers", "_modules"} | attributes.keys() - of_torch.keys()
    return {name: one for name, one in attributes.items() if name in kept}


def _refusal(name: str) -> ConfigError:
    return ConfigError(
        f"{name} has no source that can be read, or no form that lasts. Give your part an attribute `version`, such as "
        "'1', and change it whenever the code changes (wrap what takes no attributes in a function)"
    )
