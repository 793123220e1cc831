"""Settings: profiles, what the environment lays over them, the precision they ask for, and values that are refused."""

import warnings
from dataclasses import fields

import pytest
import torch

from medsam_helpers import device as precision
from medsam_helpers.runs.settings import PROFILES, RunConfig, config_from_environment
from medsam_helpers.data.sources import SOURCES
from medsam_helpers.errors import ConfigError
from medsam_helpers.device import autocast, default_device, effective_precision, has_fast_bf16
from medsam_helpers.training.recipes import RECIPES
from medsam_helpers.sam.checkpoints import WEIGHTS


def test_profiles_are_the_three_that_the_series_promises():
    assert list(PROFILES) == ["laptop", "kvasir", "breast"]
    assert (PROFILES["laptop"].model, PROFILES["laptop"].data) == ("mobile-sam", "phantom")
    for name in ("kvasir", "breast"):
        assert (PROFILES[name].model, PROFILES[name].data) == ("sam-vit-base", name)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_every_profile_names_what_there_is(profile):
    assert profile.model in WEIGHTS
    assert profile.data in SOURCES
    assert profile.full_recipe().name == profile.recipe


@pytest.mark.parametrize("environment", [{}, {"MEDSAM_PROFILE": "laptop"}, {"MEDSAM_PROFILE": "", "MEDSAM_LR": ""}])
def test_without_a_word_it_is_the_laptop(environment):
    assert config_from_environment(environment) == PROFILES["laptop"]


def test_the_environment_overrides_every_field_of_a_profile():
    values = {
        "model": "lite-medsam",
        "data": "a/folder",
        "train_limit": 8,
        "dev_limit": 2,
        "val_limit": 0,
        "recipe": "sam",
        "epochs": 3,
        "lr": 5e-4,
        "batch": 2,
        "jitter_1024": 12.5,
        "box_mode": "components",
        "precision": "fp32",
        "seed": 7,
        "skip_bad": True,
        "tta": True,
        "start": "kvasir-polyps",
    }
    assert set(values) == {field.name for field in fields(RunConfig)}
    environment = {f"MEDSAM_{name.upper()}": str(value) for name, value in values.items()}
    assert config_from_environment({"MEDSAM_PROFILE": "kvasir", **environment}) == RunConfig(**values)


def test_what_the_environment_does_not_name_stays_the_profiles():
    config = config_from_environment({"MEDSAM_PROFILE": "kvasir", "MEDSAM_MODEL": "mobile-sam"})
    assert (config.model, config.data, config.recipe) == ("mobile-sam", "kvasir", "guide")


def test_arguments_lie_over_the_environment():
    assert config_from_environment({"MEDSAM_EPOCHS": "3"}, epochs=5).epochs == 5
    assert config_from_environment({"MEDSAM_EPOCHS": "3"}, epochs=None).epochs == 3


def test_the_process_environment_is_the_default(monkeypatch):
    monkeypatch.setenv("MEDSAM_SEED", "3")
    assert config_from_environment().seed == 3


@pytest.mark.parametrize(
    ("text", "value"), [("1", True), ("Yes", True), ("on", True), ("0", False), ("FALSE", False), ("no", False)]
)
def test_a_switch_takes_the_usual_words(text, value):
    assert config_from_environment({"MEDSAM_SKIP_BAD": text}).skip_bad is value


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("PROFILE", "gpu", "MEDSAM_PROFILE='gpu' is unknown: use laptop, kvasir, breast"),
        ("EPOCHS", "1.5", "MEDSAM_EPOCHS='1.5' must be a whole number"),
        ("TRAIN_LIMIT", "all", "MEDSAM_TRAIN_LIMIT='all' must be a whole number"),
        ("LR", "fast", "MEDSAM_LR='fast' must be a finite number"),
        ("JITTER_1024", "nan", "MEDSAM_JITTER_1024='nan' must be a finite number"),
        ("LR", "inf", "MEDSAM_LR='inf' must be a finite number"),
        ("SKIP_BAD", "maybe", "MEDSAM_SKIP_BAD='maybe' must be yes or no"),
        ("BOX_MODE", "each", "box_mode 'each' is unknown: use union or components"),
        ("SEED", "-1", "seed must be a whole number from 0 up, is -1"),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(name, text, message):
    with pytest.raises(ConfigError) as caught:
        config_from_environment({f"MEDSAM_{name}": text})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": "nope"}, "recipe 'nope' is unknown: use quick, best, guide, sam, medsam"),
        ({"epochs": 0}, "epochs must be greater than 0"),
        ({"lr": -1e-4}, "lr must be greater than 0"),
        ({"lr": float("nan")}, "lr must be greater than 0"),
        ({"batch": 0}, "batch must be greater than 0"),
        ({"jitter_1024": -1.0}, "jitter_1024 must not be negative"),
        ({"precision": "int8"}, "precision 'int8' is unknown"),
    ],
)
def test_a_bad_recipe_value_is_found_when_the_recipe_is_made(changes, message):
    with pytest.raises(ConfigError, match=message):
        RunConfig(**changes).full_recipe()


def test_the_recipe_of_a_run_is_the_named_one_with_the_runs_changes():
    recipe = RunConfig(recipe="guide", epochs=2, jitter_1024=0.0).full_recipe()
    assert recipe == RECIPES["guide"].but(epochs=2, jitter_1024=0.0)
    assert RunConfig(recipe="guide").full_recipe() == RECIPES["guide"]


def test_but_changes_what_is_given_and_keeps_the_rest():
    config = RunConfig(epochs=4)
    assert config.but(epochs=None, seed=1) == RunConfig(epochs=4, seed=1)
    assert config.but(jitter_1024=0.0).jitter_1024 == 0.0, "0 is a value, not a gap"
    assert config == RunConfig(epochs=4)


def test_limits_are_what_load_data_takes():
    limits = RunConfig(train_limit=3, skip_bad=True).limits()
    assert limits == {"train_limit": 3, "dev_limit": None, "val_limit": None, "skip_bad": True}


def test_one_line_tells_the_source_and_what_differs_from_the_default():
    assert str(RunConfig()) == "model mobile-sam, data phantom, recipe best"
    assert str(RunConfig(data="mine", epochs=3)) == "model mobile-sam, data mine, recipe best, epochs 3"


# --- precision ---

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))


@pytest.mark.parametrize(("bf16_seconds", "pays"), [(0.5, True), (0.9, False), (2.0, False)])
def test_bf16_is_fast_where_it_multiplies_faster_whatever_the_list_of_abilities_says(monkeypatch, bf16_seconds, pays):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    times = {torch.float32: 1.0, torch.bfloat16: bf16_seconds}
    monkeypatch.setattr(precision, "_seconds_to_multiply", times.get)
    assert has_fast_bf16.__wrapped__(CPU) == pays


def test_the_time_of_a_product_is_taken_and_positive():
    assert 0 < precision._seconds_to_multiply(torch.float32, side=64) < 1


def test_a_torch_that_cannot_be_asked_means_no_bf16(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not has_fast_bf16.__wrapped__(CPU)


def test_auto_takes_bf16_where_it_is_fast_and_what_is_asked_for_stays():
    assert effective_precision("auto", CPU) == ("bf16" if has_fast_bf16(CPU) else "fp32")
    assert effective_precision("auto", MPS) == "fp32"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, device in (("fp32", CPU), ("bf16", CPU), ("fp16", CUDA), ("bf16", CUDA)):
            assert effective_precision(name, device) == name


@pytest.mark.parametrize("device", [CPU, MPS])
def test_fp16_without_cuda_runs_in_fp32_and_says_so(device):
    with pytest.warns(UserWarning, match=f"fp16 needs CUDA; on {device.type} this runs in fp32"):
        assert effective_precision("fp16", device) == "fp32"


def test_an_unknown_precision_lists_those_there_are():
    with pytest.raises(ConfigError, match="precision 'half' is unknown: use auto, fp32, bf16, fp16"):
        effective_precision("half", CPU)


@pytest.mark.parametrize(("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_products_are_computed_in_the_precision_of_the_context(name, dtype):
    matrix = torch.eye(3)
    with autocast(CPU, name):
        assert (matrix @ matrix).dtype == dtype
    assert (matrix @ matrix).dtype == torch.float32


def test_the_default_device_is_the_best_there_is():
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert default_device().type == best
