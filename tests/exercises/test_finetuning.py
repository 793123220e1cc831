"""Checkers of notebook 04: right answers, each kind of wrong one with its hint, stubs."""

import numpy as np
import pytest
import torch

from medsam_helpers.exercises import CHECKERS, check


def said(capsys, exercise, answer):
    check(exercise, answer)
    return capsys.readouterr().out


def stop(dev_dice, patience):
    best = 0
    for epoch, score in enumerate(dev_dice):
        if score > dev_dice[best]:
            best = epoch
        if epoch - best >= patience:
            return epoch, best
    return len(dev_dice) - 1, best


def late_best(dev_dice, patience):
    """Of equal scores the later."""
    best = 0
    for epoch, score in enumerate(dev_dice):
        if score >= dev_dice[best]:
            best = epoch
        if epoch - best >= patience:
            return epoch, best
    return len(dev_dice) - 1, best


def without_zero_shot(dev_dice, patience):
    epoch, best = stop(dev_dice[1:], patience)
    return epoch + 1, best + 1


def falls_in_a_row(dev_dice, patience):
    """Counts epochs that are worse than the one before."""
    worse = 0
    for epoch in range(1, len(dev_dice)):
        worse = worse + 1 if dev_dice[epoch] <= dev_dice[epoch - 1] else 0
        if worse >= patience:
            return epoch, int(np.argmax(dev_dice[: epoch + 1]))
    return len(dev_dice) - 1, int(np.argmax(dev_dice))


def accumulated(weight, batches, loss_of):
    total = sum(len(x) for x, _ in batches)
    gradient = torch.zeros_like(weight)
    for batch in batches:
        gradient += torch.autograd.grad(loss_of(weight, batch), weight)[0] * len(batch[0]) / total
    return gradient


def by_backward(weight, batches, loss_of):
    total = sum(len(x) for x, _ in batches)
    for batch in batches:
        (loss_of(weight, batch) * len(batch[0]) / total).backward()
    return weight.grad


def only_summed(weight, batches, loss_of):
    return sum(torch.autograd.grad(loss_of(weight, batch), weight)[0] for batch in batches)


def plain_mean(weight, batches, loss_of):
    return only_summed(weight, batches, loss_of) / len(batches)


def all_at_once(weight, batches, loss_of):
    whole = tuple(torch.cat(part) for part in zip(*batches, strict=True))
    return torch.autograd.grad(loss_of(weight, whole), weight)[0]


RIGHT = [
    ("04.1", 260),
    ("04.1", np.float32(260)),
    ("04.2", stop),
    ("04.2", lambda dev_dice, patience: np.array(stop(dev_dice, patience))),
    ("04.3", accumulated),
    ("04.3", by_backward),
]
WRONG = [
    ("04.1", 510, "two of them make one step"),
    ("04.1", 255, "round up in each epoch"),
    ("04.1", 250, "smaller batch"),
    ("04.1", 2030, "those are images"),
    ("04.1", "many", "batches an epoch"),
    ("04.2", lambda dev_dice, patience: (len(dev_dice) - 1, int(np.argmax(dev_dice))), "is the last|is kept"),
    ("04.2", lambda dev_dice, patience: (stop(dev_dice, patience)[0], int(np.argmax(dev_dice))), "never ran"),
    ("04.2", late_best, "the earlier stays"),
    ("04.2", without_zero_shot, "epoch 0, the zero-shot model"),
    ("04.2", falls_in_a_row, "is the last|is kept"),
    ("04.2", lambda dev_dice, patience: 3, "two epochs"),
    ("04.3", only_summed, "2 times too large"),
    ("04.3", plain_mean, "weigh each by its share"),
    ("04.3", all_at_once, "one batch at a time"),
    ("04.3", lambda weight, batches, loss_of: torch.zeros(2), "shape"),
    ("04.3", lambda weight, batches, loss_of: -accumulated(weight, batches, loss_of), "every image weighs the same"),
]


@pytest.mark.parametrize(("exercise", "answer"), RIGHT)
def test_a_right_answer_is_correct(capsys, exercise, answer):
    assert said(capsys, exercise, answer) == f"{exercise}: correct\n"


@pytest.mark.parametrize(("exercise", "answer", "hint"), WRONG)
def test_a_wrong_answer_gets_its_hint(capsys, exercise, answer, hint):
    line = said(capsys, exercise, answer)
    assert line.startswith(f"{exercise}: not yet: ")
    assert any(part in line for part in hint.split("|")), line


@pytest.mark.parametrize("exercise", ["04.2", "04.3"])
def test_a_stub_is_not_attempted(capsys, exercise):
    def stub(*arguments):
        """Do nothing yet."""

    assert said(capsys, exercise, stub) == f"{exercise}: not attempted yet\n"


def test_every_exercise_of_the_notebook_is_tried():
    here = {exercise for exercise in CHECKERS if exercise.startswith("04.")}
    assert {case[0] for case in RIGHT} == {case[0] for case in WRONG} == here
