"""A run's settings: profiles, what the environment lays over them, and the recipe with the run's changes."""

import subprocess
import sys
from typing import get_args

import pytest

from medsam_helpers.data.sources import SOURCES
from medsam_helpers.data.views import VIEWS
from medsam_helpers.device import PRECISIONS
from medsam_helpers.errors import ConfigError
from medsam_helpers.runs.settings import PROFILES, RunConfig, config_from_environment
from medsam_helpers.sam.checkpoints import WEIGHTS
from medsam_helpers.training.losses import LOSSES
from medsam_helpers.training.recipes import RECIPES, LossName, Precision, Recipe, ViewName


def test_profiles_are_the_three_that_the_series_promises():
    chosen = {name: (profile.model, profile.data, profile.recipe) for name, profile in PROFILES.items()}
    assert chosen == {
        "laptop": ("mobile-sam", "phantom", "quick"),
        "kvasir": ("sam-vit-base", "kvasir", "guide"),
        "breast": ("sam-vit-base", "breast", "guide"),
    }
    assert all(profile.model in WEIGHTS and profile.data in SOURCES for profile in PROFILES.values())


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


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"recipe": "nope"}, "recipe 'nope' is unknown: use quick, best"),
        ({"lr": -1}, "lr must"),
        ({"trainable": ("vision_encoder",)}, "the vision encoder cannot be trained here"),
    ],
)
def test_a_bad_recipe_or_value_of_one_is_found_at_once(changes, said):
    with pytest.raises(ConfigError, match=said):
        RunConfig(**changes)


def test_a_run_is_known_by_its_recipes_values_not_by_their_names():
    same = RunConfig(recipe="best", epochs=6, views=("as-is",))
    assert same.identity() == RunConfig(recipe="quick").identity()
    assert same.identity() != RunConfig(recipe="quick", jitter_1024=0.0).identity(), "0 is a value, not a gap"
    assert RunConfig(epochs=4).but(seed=1, lr=1e-3) == RunConfig(epochs=4, seed=1, lr=1e-3)


def test_a_loss_of_the_readers_own_and_its_body_enter_the_identity():
    def make(weight):
        return lambda logits, target: weight * ((logits.sigmoid() - target) ** 2).mean()

    one, same, other = (RunConfig(loss=make(weight)).identity() for weight in (1.0, 1.0, 2.0))
    assert one == same != other


def test_names_of_before_are_read_in_recorded_recipes():
    recorded = {"name": "x", "ema_decay": 0.9, "oversampling": 6, "views": ["as-is", "turned"]}
    assert Recipe(**recorded) == Recipe(name="x", ema_decay=0.9, oversampling=6, views=("as-is", "turned"))


def test_one_line_tells_the_source_and_what_differs_from_the_default():
    assert str(RunConfig()) == "model mobile-sam, data phantom, recipe best"
    assert str(RunConfig(data="mine", epochs=3)) == "model mobile-sam, data mine, recipe best, epochs 3"


def test_words_spelt_out_for_speed_are_those_there_are():
    assert get_args(LossName) == tuple(LOSSES)
    assert get_args(Precision) == tuple(PRECISIONS)
    assert get_args(ViewName) == tuple(VIEWS)


def test_settings_load_no_torch():
    script = "import sys, medsam_helpers.runs.experiments; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
