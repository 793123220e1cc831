"""Training recipes by name: each says where its numbers come from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AliasChoices, BeforeValidator, Field

from medsam_helpers.errors import ConfigError
from medsam_helpers.settings import BoxMode, Settings, Words, split_words

# Spelt out, since importing what they name takes seconds; tests hold both in step. Aliases: as older records call it.
LossName = Literal["bce", "dice", "focal", "dice_bce", "dice_ce", "dice_ce_squared", "sam"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
ViewName = Literal["as-is", "mirrored", "upside-down", "turned", "quarter-left", "quarter-right", "brighter", "darker"]
PartName = Literal[
    "mask_decoder", "prompt_encoder", "last_stage", "vision_encoder", "vision_encoder:lora", "automatic_head"
]
PromptKind = Literal["box", "point", "box+centre", "none"]
Part = Callable[..., Any]
"""The reader's own function or object, in place of a name: see `training.own_parts`."""


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
    """Optimiser steps of linear rise before the schedule."""
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
    A point is any pixel of the lesion."""
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


BEST = Recipe(
    name="best",
    source="as quick, longer and with views: chosen on dev of Kvasir-SEG (240 images, 6 epochs: views 0.930, "
    "without 0.925); no change tried since beats it at j20 by more than its interval (experiments/kvasir-search*.toml)",
    lr=2e-4,
    warmup_steps=20,
    ema_decay=0.95,
    views=("as-is", "mirrored", "upside-down", "turned"),
)

CLICKS = BEST.but(
    name="clicks",
    source="Kirillov et al., Segment Anything, ICCV 2023, appendix A: half boxes, half clicks, then corrections; the "
    "rest as best",
    prompts=("box", "point"),
    rounds=3,
)

LORA = BEST.but(
    name="lora",
    source="Hu et al., LoRA, ICLR 2022, on the encoder, with the decoder; rates and rank of one trial on Kvasir-SEG",
    trainable=("mask_decoder", "vision_encoder:lora"),
    lr_encoder=5e-4,
    views=("as-is",),
    augment=True,
)

UNET = Recipe(
    name="unet",
    source="for the specialist, from random weights; rate: dev of Kvasir-SEG (experiments/unet-search.toml)",
    lr=1e-3,
    warmup_steps=50,
    epochs=24,
    batch=8,
    ema_decay=0.99,
    augment=True,
)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        BEST.but(
            name="quick",
            source="for minutes on a CPU; rate, warm-up and average chosen on dev of the phantoms and of Kvasir-SEG",
            epochs=6,
            views=("as-is",),
        ),
        BEST,
        Recipe(
            name="guide",
            source="public guide to fine-tuning SAM on Kvasir-SEG; coordinate-space bug and one-sided jitter put right",
            loss="dice_ce_squared",
            lr=1e-5,
            lr_min=1e-7,
            epochs=30,
            batch=2,
            accumulation=2,
            precision="fp16",
        ),
        Recipe(
            name="sam",
            source="Kirillov et al., Segment Anything, ICCV 2023, section 3 and appendix A (loss, AdamW, decay 0.1, "
            "warm-up 250); learning rate scaled down from 8e-4 for a batch of 4",
            loss="sam",
            weight_decay=0.1,
            warmup_steps=250,
        ),
        Recipe(
            name="medsam",
            source="Ma et al., Segment anything in medical images, Nature Communications 2024 (loss, AdamW 1e-4, "
            "decay 0.01); decoder only, batch of 4",
            loss="dice_bce",
        ),
        BEST.but(
            name="last-stage",
            source="as best, with the encoder's last stage",
            trainable=("mask_decoder", "last_stage"),
        ),
        CLICKS,
        BEST.but(
            name="automatic",
            source="a head that needs no prompt; rate and epochs of one trial on Kvasir-SEG",
            trainable=("automatic_head",),
            prompts=("none",),
            lr=1.5e-3,
            epochs=30,
            batch=8,
            warmup_steps=50,
            ema_decay=0.99,
        ),
        LORA,
        LORA.but(
            name="whole-encoder",
            source="as lora, all of the encoder's weights at a fifth of the rate",
            trainable=("mask_decoder", "vision_encoder"),
            lr_encoder=1e-4,
        ),
        UNET,
        UNET.but(
            name="unet-pretrained",
            source="as unet, without a prompt, the encoder at a fifth of the rate",
            trainable=("mask_decoder", "vision_encoder"),
            lr_encoder=2e-4,
            prompts=("none",),
        ),
    )
}


def get_recipe(name: str) -> Recipe:
    """The recipe of this name; `ConfigError` lists the names there are."""
    if name not in RECIPES:
        raise ConfigError(f"recipe {name!r} is unknown: use {', '.join(RECIPES)}")
    return RECIPES[name]
