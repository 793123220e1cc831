"""What a sweep varies, and what came of it: a trial's recipe, the table of all trials, a recorded study for drawing."""

from __future__ import annotations

import optuna
import pandas as pd
from optuna.trial import Trial, TrialState

from medsam_helpers.training.recipes import Recipe, get_recipe

BASE_RECIPE = "medsam"
optuna.logging.set_verbosity(optuna.logging.WARNING)  # the table says it better than a line a trial
DONE = (TrialState.COMPLETE, TrialState.PRUNED)
SPACE: dict[str, tuple] = {
    "lr": (1e-5, 1e-3),
    "loss": ("dice_ce", "dice_bce", "sam"),
    "jitter_1024": (0.0, 10.0, 20.0, 40.0),
    "batch": (2, 4, 8),
    "weight_decay": (1e-4, 0.1),
}
"""Rate and decay: from, to, by their logarithm; the others: one of these."""


def trials_table(study: optuna.Study) -> pd.DataFrame:
    """A trial a row: number, state, dev Dice at its end and after its first epoch, epochs, seconds, and what was tried.

    The best comes first.
    """
    rows = [
        {
            "trial": trial.number,
            "state": trial.state.name.lower(),
            "dev_dice": trial.value if trial.value is not None else float("nan"),
            "first_dice": trial.intermediate_values.get(1, float("nan")),
            "epochs": max(trial.intermediate_values, default=0),
            "seconds": round(trial.duration.total_seconds(), 1) if trial.duration else float("nan"),
            **trial.params,
        }
        for trial in study.trials
    ]
    return pd.DataFrame(rows).sort_values("dev_dice", ascending=False, ignore_index=True)


def study_of(table: pd.DataFrame, first_epoch: bool = False) -> optuna.Study:
    """A study in memory from the table of a recorded one, for drawing: its finished and pruned trials.

    Args:
        table: of `trials_table`, or read from its CSV.
        first_epoch: all trials by their dev Dice after one epoch, the only time at which a pruned one and a finished
            one compare.
    """
    asked = optuna.create_study().ask()
    suggest(asked, get_recipe("best"))
    kinds, study = asked.distributions, optuna.create_study(direction="maximize")
    for row in table.sort_values("trial").to_dict("records"):
        state = TrialState[row["state"].upper()]
        if state in DONE:
            known = {} if first_epoch else {1: row["first_dice"], int(row["epochs"]): row["dev_dice"]}
            study.add_trial(
                optuna.create_trial(
                    state=TrialState.COMPLETE if first_epoch else state,
                    value=row["first_dice" if first_epoch else "dev_dice"],
                    params={name: row[name] for name in SPACE},
                    distributions=kinds,
                    intermediate_values=known,
                )
            )
    return study


def suggest(trial: Trial, recipe: Recipe) -> Recipe:
    """The recipe that a trial tries."""
    return recipe.but(
        lr=trial.suggest_float("lr", *SPACE["lr"], log=True),
        loss=trial.suggest_categorical("loss", SPACE["loss"]),
        jitter_1024=trial.suggest_categorical("jitter_1024", SPACE["jitter_1024"]),
        batch=trial.suggest_categorical("batch", SPACE["batch"]),
        weight_decay=trial.suggest_float("weight_decay", *SPACE["weight_decay"], log=True),
    )


def best_recipe(study: optuna.Study, recipe: str = BASE_RECIPE) -> Recipe:
    """The recipe of the trial with the highest dev Dice."""
    return suggest(optuna.trial.FixedTrial(study.best_params), get_recipe(recipe))
