"""Training recipes: the settings of one, and those of `recipes.toml` by name."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AliasChoices, BeforeValidator, Field

from medsam_helpers.errors import check_known
from medsam_helpers.settings import BoxMode, Settings, Words, split_words

# Spelt out, since importing what they name takes seconds; tests hold both in step. Aliases: as older records call it.
LossName = Literal["bce", "dice", "focal", "dice_bce", "dice_ce", "dice_ce_squared", "sam"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
ViewName = Literal["as-is", "mirrored", "upside-down", "turned", "quarter-left", "quarter-right", "brighter", "darker"]
PartName = Literal[
    "mask_decoder", "prompt_encoder", "last_stage", "vision_encoder", "vision_encoder:lora", "automatic_head"
]
PromptKind = Literal["box", "point", "several", "box+centre", "box+points", "mask", "none"]
Part = Callable[..., Any]  # the reader's own function or object, in place of a name: see `training.own_parts`


class Recipe(Settings):
    """How a model is fine-tuned. Where a name stands for a function, a function of your own may stand too."""

    LABELS: ClassVar[tuple[str, ...]] = ("name", "source")

    name: str
    """Under which it is recorded."""
    source: str = ""
    """Paper or repository of the numbers."""
    loss: LossName | Part = "dice_ce"
    """What is made small."""
    optimizer: Literal["adamw"] | Part = "adamw"
    """What changes the weights."""
    schedule: Literal["cosine"] | Part = "cosine"
    """How the learning rate goes on after the warm-up."""
    metric: Literal["dice"] | Part = "dice"
    """By which dev chooses the epoch; higher is better."""
    lr: float = Field(1e-4, gt=0)
    """Peak learning rate."""
    lr_min: float = Field(0.0, ge=0)
    """Where the cosine ends."""
    weight_decay: float = Field(0.01, ge=0)
    """Share of each weight that a step takes away, times the rate."""
    warmup_steps: int = Field(0, ge=0, le=10**9)
    """Optimiser steps of linear rise before the schedule; a run of fewer steps never reaches its rate."""
    epochs: int = Field(10, ge=1, le=100_000)
    """Passes over the training cases."""
    batch: int = Field(4, ge=1, le=100_000)
    """Prompts a forward pass, over all processes."""
    accumulation: int = Field(1, ge=1, le=100_000)
    """Forward passes an optimiser step."""
    precision: Precision = "auto"
    """Of the forward pass; auto: bf16 where it is fast. The loss is always computed in float32."""
    jitter_1024: float = Field(20.0, ge=0, le=1024)
    """Largest move of a box side, in pixels of a model space of 1024; 0: exact boxes."""
    views: Annotated[tuple[ViewName, ...], Field(min_length=1), BeforeValidator(split_words)] = ("as-is",)
    """Of each training case; an epoch shows one of them. Each is encoded once."""
    box_mode: BoxMode = "union"
    """One box round everything, or one (drawn anew each epoch) of the components."""
    prompts: Annotated[tuple[PromptKind, ...], Field(min_length=1), BeforeValidator(split_words)] = ("box",)
    """Kinds that a batch is first prompted with, one of them by lot; twice named, twice as often. Dev gets the first.
    A point is any pixel of the lesion; points, or several: two more in its box; a mask: the lesion moved, its box."""
    rounds: int = Field(0, ge=0, le=20)
    """Largest number of corrections after the first prompt: a click on the largest mistake, and the logits before."""
    mask_only: float = Field(0.0, ge=0, le=1)
    """Share of the corrections that bring the logits alone, without a click."""
    score_weight: float = Field(0.0, ge=0)
    """In the loss, of the squared error of the model's own guess of its IoU; 0: that guess is not trained."""
    clip_norm: float = Field(1.0, gt=0)
    """Largest norm of the gradient."""
    ema_decay: float = Field(0.0, ge=0, lt=1, validation_alias=AliasChoices("ema_decay", "average_decay"))
    """Of the exponential moving average of the weights, which dev scores and which is kept; 0: the last step's."""
    loss_size: int | None = Field(None, ge=1, le=8192)
    """Side of the square that the loss is computed on, logits enlarged to it; default: the decoder's own, 256."""
    patience: int | None = Field(None, ge=0)
    """Epochs without a better dev score before the run stops; default: never."""
    trainable: Annotated[tuple[PartName, ...], Field(min_length=1), BeforeValidator(split_words)] = ("mask_decoder",)
    """Parts whose weights change. Of the encoder one: its last_stage, all of it, or what LoRA adds to it."""
    lr_encoder: float | None = Field(None, gt=0)
    """Peak learning rate of the encoder's part; default: as the others'."""
    lora_rank: int = Field(16, ge=1, le=1024)
    """Width of LoRA's matrices."""
    lora_alpha: float = Field(32.0, gt=0)
    """Their product is multiplied with alpha / rank."""
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of a layer's inputs that LoRA does not see in a step."""
    lora_targets: Words = ()
    """Linear layers that get it, by the last word of their name; default: qkv, proj, fc1 and fc2, as far as there."""
    gradient_checkpointing: bool = False
    """Compute the encoder's results a second time for the gradient: less memory, more time."""
    augment: bool | Part = False
    """Change each image at random on the way; for a model that sees pixels: its encoder trains, or it is a U-Net."""
    oversampling: int = Field(1, ge=1, validation_alias=AliasChoices("oversampling", "several_times"))
    """How often an epoch shows an image with several lesions, the hardest prompt under one box round all."""

    @property
    def needs_no_prompt(self) -> bool:
        """Whether what it trains is never prompted: then it sees images without a lesion too."""
        return set(self.prompts) == {"none"}

    @staticmethod
    def plain(value: Any) -> Any:
        """A value as JSON holds it; of a function of one's own, what tells it from another."""
        if callable(value):
            from medsam_helpers.training.own_parts import source_identity

            return source_identity(value)
        return Settings.plain(value)


RECIPES: dict[str, Recipe] = {}
for _name, _table in tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")).items():
    RECIPES[_name] = RECIPES.get(_table.pop("like", ""), Recipe(name=_name)).but(**_table, name=_name)


def get_recipe(name: str) -> Recipe:
    """The recipe of this name; `ConfigError` lists the names there are."""
    check_known("recipe", name, RECIPES)
    return RECIPES[name]
