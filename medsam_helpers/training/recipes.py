"""Training recipes by name: each says where its numbers come from."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, get_args

from medsam_helpers.data.views import VIEWS
from medsam_helpers.device import PRECISIONS
from medsam_helpers.errors import ConfigError
from medsam_helpers.prompts import BoxMode
from medsam_helpers.training.losses import LOSSES


@dataclass(frozen=True)
class Recipe:
    """How a model is fine-tuned.

    Args:
        name: under which it is recorded.
        source: paper or repository of the numbers.
        loss: a name of `losses.LOSSES`.
        lr: peak learning rate of AdamW.
        lr_min: where the cosine ends.
        weight_decay: of AdamW.
        warmup_steps: optimiser steps of linear rise before the cosine.
        epochs: passes over the training cases.
        batch: prompts a forward pass, over all processes.
        accumulation: forward passes an optimiser step.
        precision: "auto", "fp32", "bf16" or "fp16"; the loss is always computed in float32.
        jitter_1024: largest move of a box side, pixels of a model space of 1024.
        views: of each training case, names of `data.views.VIEWS`; an epoch shows one of them. Each is encoded once.
        box_mode: one box round everything, or one (drawn anew each epoch) of the components.
        clip_norm: largest norm of the gradient.
        ema_decay: of the moving average of the weights, which is what dev scores and what is kept; 0 keeps the
            last step's weights.
        loss_size: side of the square that the loss is computed on. None: the decoder's own, 256. Larger: logits are
            enlarged bilinearly, as for the mask that a reader gets, and targets are finer (one bool a pixel and view in
            memory).
        patience: epochs without a better dev Dice before the run stops; None runs them all.
        trainable: parts whose weights change. The encoder cannot: its embeddings are cached. Its `last_stage` can, in
            the models that are cut before it.
        augment: change each image at random on the way, see `augmentation`; for a network that sees pixels (a U-Net).
        oversampling: how often an epoch shows an image with several lesions; they are few, and one box round all of
            them is the hardest prompt.

    Raises:
        ConfigError: a value that cannot be.
    """

    name: str
    source: str
    loss: str = "dice_ce"
    lr: float = 1e-4
    lr_min: float = 0.0
    weight_decay: float = 0.01
    warmup_steps: int = 0
    epochs: int = 10
    batch: int = 4
    accumulation: int = 1
    precision: str = "auto"
    jitter_1024: float = 20.0
    views: tuple[str, ...] = ("as-is",)
    box_mode: BoxMode = "union"
    clip_norm: float = 1.0
    ema_decay: float = 0.0
    loss_size: int | None = None
    patience: int | None = None
    trainable: tuple[str, ...] = ("mask_decoder",)
    augment: bool = False
    oversampling: int = 1

    def __post_init__(self) -> None:
        positive = {"lr": self.lr, "epochs": self.epochs, "batch": self.batch, "accumulation": self.accumulation}
        positive |= {"oversampling": self.oversampling}
        for name, value in positive.items():
            if not (value > 0 and math.isfinite(value)):
                raise ConfigError(f"{name} must be greater than 0 and finite, is {value:g}")
        for name in ("lr_min", "weight_decay", "warmup_steps", "jitter_1024"):
            if not (getattr(self, name) >= 0 and math.isfinite(getattr(self, name))):
                raise ConfigError(f"{name} must not be negative, is {getattr(self, name):g}")
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"ema_decay must be from 0 up and below 1, is {self.ema_decay:g}")
        if self.loss_size is not None and not self.loss_size > 0:
            raise ConfigError(f"loss_size must be greater than 0, or None for the decoder's own, is {self.loss_size}")
        if self.loss not in LOSSES:
            raise ConfigError(f"loss {self.loss!r} is unknown: use {', '.join(LOSSES)}")
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision {self.precision!r} is unknown: use {', '.join(PRECISIONS)}")
        if self.box_mode not in get_args(BoxMode):
            raise ConfigError(f"box_mode {self.box_mode!r} is unknown: use {' or '.join(get_args(BoxMode))}")
        if not self.views or not set(self.views) <= VIEWS.keys():
            raise ConfigError(f"views {', '.join(self.views) or 'none'}: use one or more of {', '.join(VIEWS)}")
        if "vision_encoder" in self.trainable:
            raise ConfigError("the vision encoder cannot be trained here: its embeddings are cached")

    def but(self, **changes: Any) -> Recipe:
        """A copy with some values changed; those that are None are left as they are."""
        return replace(self, **{name: value for name, value in changes.items() if value is not None})

    def as_dict(self) -> dict[str, Any]:
        """All values, JSON-able; a later field only where it is set, so that runs of before it keep their identity."""
        values = asdict(self) | {"trainable": list(self.trainable), "views": list(self.views)}
        later = {"loss_size": None, "augment": False, "oversampling": 1}
        return {name: value for name, value in values.items() if name not in later or value != later[name]}


BEST = Recipe(
    "best",
    source="as quick, longer and with views: chosen on dev of Kvasir-SEG (240 images, 6 epochs: views 0.930, "
    "without 0.925); no change tried since beats it at j20 by more than its interval (experiments/kvasir-search*.toml)",
    lr=2e-4,
    warmup_steps=20,
    ema_decay=0.95,
    views=("as-is", "mirrored", "upside-down", "turned"),
)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "quick",
            source="for minutes on a CPU; rate, warm-up and average chosen on dev of the phantoms and of Kvasir-SEG",
            lr=2e-4,
            warmup_steps=20,
            epochs=6,
            ema_decay=0.95,
        ),
        BEST,
        Recipe(
            "guide",
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
            "sam",
            source="Kirillov et al., Segment Anything, ICCV 2023, section 3 and appendix A (loss, AdamW, decay 0.1, "
            "warm-up 250); learning rate scaled down from 8e-4 for a batch of 4",
            loss="sam",
            weight_decay=0.1,
            warmup_steps=250,
        ),
        Recipe(
            "medsam",
            source="Ma et al., Segment anything in medical images, Nature Communications 2024 (loss, AdamW 1e-4, "
            "decay 0.01); decoder only, batch of 4",
            loss="dice_bce",
        ),
        BEST.but(
            name="last-stage",
            source="as best, and the encoder's last stage learns too; for a model that is cut before it "
            "(mobile-sam-last-stage)",
            trainable=("mask_decoder", "last_stage"),
        ),
        Recipe(
            "unet",
            source="for the specialist, from random weights; rate: dev of Kvasir-SEG (experiments/unet-search.toml)",
            lr=1e-3,
            warmup_steps=50,
            epochs=24,
            batch=8,
            ema_decay=0.99,
            augment=True,
        ),
    )
}


def get_recipe(name: str) -> Recipe:
    """The recipe of this name.

    Raises:
        ConfigError: lists the names there are.
    """
    if name not in RECIPES:
        raise ConfigError(f"recipe {name!r} is unknown: use {', '.join(RECIPES)}")
    return RECIPES[name]
