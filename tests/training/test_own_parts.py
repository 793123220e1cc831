"""What stands for a reader's own part: its source and values, nothing of where it stands."""

import copy
import functools
import json
import linecache
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from medsam_helpers.errors import ConfigError
from medsam_helpers.training.own_parts import source_identity
from medsam_helpers.training.recipes import Recipe


def run_cell(code, name="cell-1", **names):
    """A notebook's cell: no file, and source that `linecache` knows, as IPython leaves it there."""
    linecache.cache[name] = (len(code), None, code.splitlines(True), name)
    exec(compile(code, name, "exec"), names)
    return names


def loss_of(code="def loss(logits, target):\n    return alpha * helper(logits)\n", cell="cell-1", **names):
    return run_cell(code, cell, **names)["loss"]


def test_a_notebooks_function_is_its_source_wherever_it_stands():
    code = "def loss(logits, target):\n    return 2 * (logits - target).abs().mean()\n"
    first = source_identity(loss_of(code))
    assert first == {"source": code} == source_identity(loss_of("\n\n# below\n" + code, "cell-7"))
    assert source_identity(loss_of(code.replace("2", "3"))) != first, "another body under the same name"
    assert source_identity(run_cell(code.replace("loss(", "mine("))["mine"]) != first, "another name"
    assert source_identity(lambda z, t: (z - t).mean()) == {"source": "lambda z, t: (z - t).mean()"}


def test_global_values_count_and_global_functions_do_not():
    one = source_identity(loss_of(alpha=1, helper=lambda z: z))
    assert one["values"] == {"alpha": 1}
    assert source_identity(loss_of(alpha=1, helper=lambda z: -z)) == one, "what it calls is not followed"
    assert source_identity(loss_of(alpha=2, helper=lambda z: z)) != one


def weighted(weight, scale=1.0):
    @functools.wraps(nn.functional.mse_loss)  # as a decorator does; what counts is the code here
    def loss(logits, target, power=2):
        return scale * (weight * (logits - target) ** power).mean()

    return loss


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (weighted(2), weighted(3)),
        (weighted(torch.tensor([1.0, 2.0])), weighted(torch.tensor([1.0, 2.5]))),
        (weighted(np.ones(3)), weighted(np.ones((3, 1)))),
        (weighted(1, weighted(2)), weighted(1, weighted(3))),  # a callable that it closes over
        (functools.partial(weighted(2), power=2), functools.partial(weighted(2), power=3)),
        (nn.BCEWithLogitsLoss(reduction="mean"), nn.BCEWithLogitsLoss(reduction="sum")),
        (nn.Sequential(nn.PReLU(1, 0.1)), nn.Sequential(nn.PReLU(1, 0.2))),  # by its weights
    ],
)
def test_another_value_is_another_identity_and_the_same_one_the_same(one, other):
    same = copy.deepcopy(one)
    if isinstance(same, nn.Module):
        same.eval()  # a network's mode does not count
    assert source_identity(one) == source_identity(same) != source_identity(other)
    assert "0x" not in json.dumps(source_identity(one))


@dataclass
class Tversky:
    beta: float

    def __call__(self, logits, target):
        return self.beta * logits.mean()


def test_an_object_is_its_methods_and_attributes():
    first = source_identity(Tversky(0.3))
    assert first["attributes"] == {"beta": 0.3}
    assert "self.beta * logits.mean()" in first["class"]["members"]["__call__"]["source"]
    assert source_identity(Tversky(0.7)) != first
    assert source_identity(Tversky(0.3).__call__)["self"] == first


def without_source():
    made = {}
    exec("def loss(logits, target): return logits.mean()", made)
    return made["loss"]


TWO_ON_A_LINE = (lambda z: z, lambda z: -z)
WITH_A_GENERATOR = functools.partial(weighted(1), np.random.default_rng(0))


@pytest.mark.parametrize("part", [math.exp, without_source(), WITH_A_GENERATOR, TWO_ON_A_LINE[0]])
def test_what_cannot_be_known_is_refused_and_told_to_carry_a_version(part):
    with pytest.raises(ConfigError, match="Give your part an attribute `version`, such as '1'"):
        source_identity(part)


def test_a_version_stands_in_for_the_source_also_inside_of_a_partial():
    loss = without_source()
    loss.version = 1
    assert source_identity(loss) == {"name": "loss", "version": "1"}
    recipe = Recipe(name="mine", loss=functools.partial(loss, weight=2))
    first = recipe.identity()
    assert first == {"loss": source_identity(recipe.loss)}
    loss.version = 2
    assert recipe.identity() != first
