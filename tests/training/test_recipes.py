"""Recipes: what cannot be is refused, and what is named is there."""

from typing import get_args

import pytest

from medsam_helpers.data.views import VIEWS
from medsam_helpers.device import PRECISIONS
from medsam_helpers.errors import ConfigError
from medsam_helpers.training.losses import LOSSES
from medsam_helpers.training.recipes import LossName, Precision, Recipe, ViewName, get_recipe


def test_a_recipe_that_cannot_be_is_refused():
    recipe = Recipe(name="test")
    with pytest.raises(ConfigError, match="box_mode 'both' is unknown: use union, components or labels"):
        recipe.but(box_mode="both")
    with pytest.raises(ConfigError, match="loss 'hinge' is unknown: use bce, dice"):
        recipe.but(loss="hinge")
    with pytest.raises(ConfigError, match="is unknown: use mask_decoder, prompt_encoder, last_stage, vision_encoder"):
        recipe.but(trainable=("encoder",))
    with pytest.raises(ConfigError, match="recipe 'magic' is unknown: use best, quick, guide, sam, medsam"):
        get_recipe("magic")


def test_the_names_that_a_recipe_takes_are_those_there_are():
    assert set(get_args(LossName)) == LOSSES.keys()
    assert set(get_args(Precision)) == set(PRECISIONS)
    assert set(get_args(ViewName)) == VIEWS.keys()
