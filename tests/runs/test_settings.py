"""A run's settings: profiles, what the environment lays over them, and the recipe with the run's changes."""

import pytest

from medsam_helpers.errors import ConfigError
from medsam_helpers.runs.settings import PROFILES, RunConfig, config_from_environment
from medsam_helpers.training.recipes import RECIPES


def test_environment_lies_over_the_profile_and_arguments_over_both(monkeypatch):
    environment = {"MEDSAM_PROFILE": "kvasir", "MEDSAM_MODEL": "mobile-sam", "MEDSAM_EPOCHS": "3"}
    config = config_from_environment(environment | {"MEDSAM_VIEWS": "as-is,turned"})
    assert (config.model, config.data, config.recipe) == ("mobile-sam", "kvasir", "guide")
    assert config.full_recipe() == RECIPES["guide"].but(epochs=3, views=("as-is", "turned"))
    assert config_from_environment(environment, epochs=5).full_recipe().epochs == 5
    assert config_from_environment({"MEDSAM_PROFILE": "", "MEDSAM_LR": ""}) == PROFILES["laptop"]
    monkeypatch.setenv("MEDSAM_SEED", "3")
    assert config_from_environment().seed == 3


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("PROFILE", "gpu", "MEDSAM_PROFILE='gpu' is unknown: use laptop, kvasir, breast"),
        ("EPOCHS", "1.5", r"epochs must be a valid integer.*\(MEDSAM_EPOCHS in the environment\)"),
        ("SKIP_BAD", "maybe", r"skip_bad must be a valid boolean.*\(MEDSAM_SKIP_BAD in the environment\)"),
    ],
)
def test_a_bad_value_in_the_environment_is_named(name, text, said):
    with pytest.raises(ConfigError, match=said):
        config_from_environment({f"MEDSAM_{name}": text})


def test_a_run_is_known_by_its_recipes_values_not_by_their_names():
    same = RunConfig(recipe="best", epochs=6, views=("as-is",))
    assert same.identity() == RunConfig(recipe="quick").identity()
    assert same.identity() != RunConfig(recipe="quick", jitter_1024=0.0).identity(), "0 is a value, not a gap"
    assert RunConfig(epochs=4).but(seed=1, lr=1e-3) == RunConfig(epochs=4, seed=1, lr=1e-3)


def test_one_line_tells_the_source_and_what_differs_from_the_default():
    assert str(RunConfig()) == "model mobile-sam, data phantom, recipe best"
    assert str(RunConfig(data="mine", epochs=3)) == "model mobile-sam, data mine, recipe best, epochs 3"
