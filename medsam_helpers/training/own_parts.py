"""A reader's own loss, optimiser, schedule, augmentation or metric, and what stands for it in a run's identity.

Where a recipe takes the name of one of these, it also takes a callable of the reader's own:

    loss(logits, target)                     (B, 1, h, w) float32 and {0, 1} -> scalar tensor with a gradient
    optimizer(parameters, lr, weight_decay)  -> torch.optim.Optimizer
    schedule(step, total_steps, recipe)      -> learning rate of that step, counted from 0
    augment(features, target, rng)           (C, H, W) float, (h, w) bool, numpy Generator -> both, changed copies
    metric(prediction, reference)            (H, W) bool both, original space -> float, higher is better
"""

import ast
import functools
import hashlib
import inspect
import json
import textwrap
from pathlib import PurePath
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from medsam_helpers.errors import ConfigError


def source_identity(part: Any) -> Any:
    """The source of a callable and the values it works with, as JSON: no memory addresses, paths or line numbers.

    Of a function: its source, its defaults, what it closes over, and global numbers and texts that it reads. Of a
    `functools.partial`: function and arguments. Of an object: the methods of its class (`__call__` and those without
    underscores) and its attributes, arrays and weights by digest. An attribute `version` stands for it all.

    Functions that a function calls are NOT followed: when one of them changes, the identity stays. Give the caller a
    `version`, or close over them.

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
    except (AttributeError, OSError, SyntaxError, TypeError, ValueError) as error:
        name = getattr(part, "__qualname__", type(part).__qualname__)
        told = f"{name} has no source that can be read, or no form that lasts ({error}). Give your part an attribute"
        do = "`version`, such as '1', and change it with the code (wrap what takes no attributes in a function)"
        raise ConfigError(f"{told} {do}") from error


def _form(value: Any) -> Any:
    """What stands for a value that JSON does not know; may hold such values in turn."""
    form: Any
    if hasattr(value, "detach"):
        import torch  # here: recipes are read where torch is not needed

        data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        form = f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(data.tobytes()).hexdigest()}"
    elif isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
        form = f"{value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
    elif isinstance(value, PurePath | np.dtype) or type(value).__module__ == "torch":  # its types and devices
        form = str(value)
    elif isinstance(value, set | frozenset):
        form = sorted(value, key=repr)
    elif (version := getattr(value, "version", None)) is not None:
        form = {"name": getattr(value, "__qualname__", type(value).__qualname__), "version": str(version)}
    elif isinstance(value, functools.partial):
        form = {"function": value.func, "args": value.args, "keywords": value.keywords}
    elif isinstance(value, MethodType):
        form = {"function": value.__func__, "self": value.__self__}
    elif isinstance(value, FunctionType):
        read = {name: value.__globals__.get(name) for name in value.__code__.co_names}
        values = {name: one for name, one in read.items() if isinstance(one, int | float | str)}
        values |= inspect.getclosurevars(value).nonlocals
        kept = {"defaults": value.__defaults__, "keywords": value.__kwdefaults__, "values": values}
        form = {"source": _source(value.__code__)} | {name: one for name, one in kept.items() if one}
    elif isinstance(value, ModuleType):
        form = value.__name__
    elif isinstance(value, type):
        form = {"name": value.__name__, "members": _members(value)}
    else:
        mode = {"training"} if hasattr(value, "eval") else set()  # of a network, in use or in training
        attributes = {name: one for name, one in vars(value).items() if name not in mode}
        form = {"class": type(value), "attributes": attributes}
    return form


def _source(code: CodeType) -> str:
    """Dedented; of a lambda the expression alone, since its line may hold more."""
    if code.co_name != "<lambda>":
        return textwrap.dedent(inspect.getsource(code))
    tree = ast.parse("".join(inspect.findsource(code)[0]))
    (found,) = (n for n in ast.walk(tree) if isinstance(n, ast.Lambda) and n.lineno == code.co_firstlineno)
    return ast.unparse(found)


def _members(kind: type) -> dict[str, Any]:
    """Methods and values of a class, and of those of its bases that stand in the same file or notebook."""
    bases = [base for base in reversed(kind.__mro__) if base.__module__ == kind.__module__]
    found = {name: member for base in bases for name, member in vars(base).items()}
    members = {
        name: getattr(member, "fget", None) or getattr(member, "__func__", member)
        for name, member in found.items()
        if name == "__call__" or not name.startswith(("__", "_abc"))
    }
    if not any(isinstance(member, FunctionType) for member in members.values()):
        raise TypeError(f"{kind.__qualname__} is not written in Python")
    return members
