"""Trials: what a sweep varies, its table, and the recorded study that is drawn."""

import optuna
import pytest
from optuna.trial import TrialState

from medsam_helpers.mlops.trials import SPACE, best_recipe, mend_study, open_study, study_of, trials_table
from medsam_helpers.training.recipes import get_recipe


def test_the_table_shows_every_trial_the_winner_is_a_recipe_and_all_can_be_drawn_again():
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    for first, last, state in ((0.4, 0.7, "COMPLETE"), (0.5, 0.9, "COMPLETE"), (0.2, 0.2, "PRUNED"), (0, 0, "FAIL")):
        trial = study.ask(SPACE)
        if state != "FAIL":
            trial.report(first, 1)
            trial.report(last, 2)
        else:
            trial.set_user_attr("refused", "the loss is nan")
        study.tell(trial, last if state == "COMPLETE" else None, state=TrialState[state])
    study.tell(study.ask(SPACE), state=TrialState.FAIL)
    table = trials_table(study)
    assert list(table["trial"]) == [1, 0, 2, 3, 4]
    assert list(table["state"]) == ["complete", "complete", "pruned", "fail", "fail"]
    assert list(table["failed"]) == ["", "", "", "the loss is nan", "died"]
    assert list(table["dev_dice"][:3]) == [0.9, 0.7, 0.2]
    assert list(table["first_dice"][:3]) == [0.5, 0.4, 0.2]
    assert list(table["epochs"]) == [2, 2, 2, 0, 0]

    winner = best_recipe(study, epochs=7)
    told = {"name": "sweep-winner", "source": "5 trials on dev", "epochs": 7}
    assert winner == get_recipe("medsam").but(**told, **study.trials[1].params), "of the recipe nothing else is changed"
    assert winner.lr == pytest.approx(table["lr"][0])

    again = study_of(table)
    assert [trial.params for trial in again.trials] == [trial.params for trial in study.trials[:3]]
    assert [trial.value for trial in again.trials] == [0.4, 0.5, 0.2], "after one epoch a pruned trial compares"


def test_a_study_that_is_opened_again_or_by_another_worker_draws_new_values(tmp_path):
    for worker in (0, 0, 1):
        study = open_study(tmp_path, worker)
        for _ in range(3):
            study.tell(study.ask(SPACE), 0.5)
    assert len({trial.params["lr"] for trial in study.trials}) == 9


def test_a_study_whose_last_line_is_torn_goes_on(tmp_path):
    mend_study(tmp_path)  # nothing is there yet
    open_study(tmp_path).ask(SPACE)
    with open(tmp_path / "study.jsonl", "ab") as file:
        file.write(b'{"op_code":4,"wor')
    mend_study(tmp_path)
    open_study(tmp_path).ask(SPACE)
    assert len(open_study(tmp_path).trials) == 2
