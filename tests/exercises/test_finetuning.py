"""Checkers of notebook 04: a right answer is correct, each kind of wrong one gets its hint."""

import numpy as np
import torch
from verdicts import says


def stop(dev_dice, patience, better=lambda new, old: new > old):
    best = 0
    for epoch, score in enumerate(dev_dice):
        best = epoch if better(score, dev_dice[best]) else best
        if epoch - best >= patience:
            break
    return epoch, best


def without_zero_shot(dev_dice, patience):
    epoch, best = stop(dev_dice[1:], patience)
    return epoch + 1, best + 1


def accumulated(weight, batches, loss_of):
    total = sum(len(x) for x, _ in batches)
    for batch in batches:
        (loss_of(weight, batch) * len(batch[0]) / total).backward()
    return weight.grad


def only_summed(weight, batches, loss_of):
    return sum(torch.autograd.grad(loss_of(weight, batch), weight)[0] for batch in batches)


def all_at_once(weight, batches, loss_of):
    return only_summed(weight, [[torch.cat(part) for part in zip(*batches, strict=True)]], loss_of)


test_what_is_said_of_an_answer = says(
    ("04.1", np.float32(260), "correct"),
    ("04.1", 255, "round up in each epoch"),
    ("04.2", stop, "correct"),
    ("04.2", lambda *given: (stop(*given)[0], int(np.argmax(given[0]))), "never ran"),
    ("04.2", lambda *given: stop(*given, better=lambda new, old: new >= old), "the earlier stays"),
    ("04.2", without_zero_shot, "epoch 0, the zero-shot model"),
    ("04.2", lambda *given: (len(given[0]) - 1, stop(*given)[1]), "is the last"),
    ("04.2", lambda *given: 3, "two epochs"),
    ("04.3", accumulated, "correct"),
    ("04.3", only_summed, "2 times too large"),
    ("04.3", lambda *given: only_summed(*given) / len(given[1]), "weigh each by its share"),
    ("04.3", all_at_once, "one batch at a time"),
    ("04.3", lambda *given: torch.zeros(2), "shape"),
    ("04.3", lambda *given: -accumulated(*given), "every image weighs the same"),
)
