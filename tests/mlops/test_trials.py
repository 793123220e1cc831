"""Trials: what a sweep varies, its table, and the recorded study that is drawn."""

import json

import matplotlib.pyplot as plt
import optuna
import pytest
from matplotlib.figure import Figure

from medsam_helpers.mlops.pictures import draw_history, draw_importances, draw_parallel_coordinates
from medsam_helpers.mlops.trials import SPACE, best_recipe, study_of, trials_table
from medsam_helpers.training.recipes import get_recipe


@pytest.fixture(scope="module")
def study():
    """Twenty trials, of which the learning rate alone decides the first epoch and the weight decay the last."""
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    for number in range(20):
        trial = study.ask(SPACE)
        trial.report(trial.params["lr"] * 900, 1)
        if number % 5 == 4:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            trial.report(trial.params["weight_decay"], 2)
            study.tell(trial, trial.params["weight_decay"])
    study.tell(study.ask(SPACE), state=optuna.trial.TrialState.FAIL)
    return study


def test_the_table_shows_every_trial_and_the_winner_is_a_recipe(study):
    table = trials_table(study)
    assert table["state"].value_counts().to_dict() == {"complete": 16, "pruned": 4, "fail": 1}
    best = table[table["state"] == "complete"].iloc[0]
    assert best["dev_dice"] == study.best_value
    winner = best_recipe(study, "best")
    assert winner == get_recipe("best").but(**study.best_params), "of the recipe nothing else is changed"
    assert (winner.lr, winner.loss) == (best["lr"], best["loss"])
    first = table.sort_values("trial").iloc[0]
    assert (first["epochs"], first["first_dice"]) == (2, pytest.approx(first["lr"] * 900))
    assert json.loads(table.to_json(orient="records"))[0].keys() >= SPACE.keys()


def test_a_recorded_sweep_is_drawn(study):
    table = trials_table(study)
    again = study_of(table)
    assert len(again.trials) == 20, "pruned ones compare after one epoch"
    assert [trial.params for trial in again.trials] == [trial.params for trial in study.trials[:20]]
    assert [trial.value for trial in again.trials] == [trial.intermediate_values[1] for trial in study.trials[:20]]

    history, importances = Figure().subplots(1, 2)
    draw_history(history, table)
    assert history.get_legend_handles_labels()[1] == ["complete: 16", "pruned: 4", "best"]
    draw_importances(importances, table)
    assert importances.get_yticklabels()[-1].get_text() == "lr", "which alone decides the first epoch: the top bar"
    shown = draw_parallel_coordinates(table)
    assert "lr" in [label.get_text() for label in shown.get_xticklabels()]
    (lines,) = shown.collections
    assert sum(lines.cmap(1.0)[:3]) < sum(lines.cmap(0.0)[:3])  # dark is good
    plt.close("all")
