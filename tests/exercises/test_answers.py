"""What is said of wrong answers: each kind of mistake gets a hint of its own. The right ones stand in the solutions."""

from functools import partial
from hashlib import sha256
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from scipy import ndimage

from medsam_helpers import bootstrap_mean
from medsam_helpers.evaluation.predictors import fill_box, fill_ellipse
from medsam_helpers.exercises import checking
from medsam_helpers.exercises.checking import check
from medsam_helpers.training.losses import dice_loss, focal_loss


def own_loss(logits, target, *, dims=(1, 2, 3), eps=1.0, mean=True):
    p = logits.sigmoid()
    hit, false_alarm, miss = ((part).sum(dims) for part in (p * target, p * (1 - target), (1 - p) * target))
    each = 1 - (hit + eps) / (hit + 0.3 * false_alarm + 0.7 * miss + eps)
    return each.mean() if mean else each


def cell_to_original(row, column, height, width):
    scale = 1024 / max(height, width)
    return (column + 0.5) * 4 / scale, (row + 0.5) * 4 / scale


def largest_mistake(prediction, truth):
    wrong, _ = ndimage.label(prediction != truth)
    return wrong == np.bincount(wrong.ravel())[1:].argmax() + 1


def next_click(prediction, truth):
    depth = ndimage.distance_transform_edt(np.pad(largest_mistake(prediction, truth), 1))[1:-1, 1:-1]
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    return x, y, truth[y, x]


def first_pixel(prediction, truth, largest=False):
    y, x = np.argwhere(largest_mistake(prediction, truth) if largest else prediction != truth)[0]
    return x, y, int(truth[y, x])


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


def only_summed(weight, batches, loss_of):
    return sum(torch.autograd.grad(loss_of(weight, batch), weight)[0] for batch in batches)


def all_at_once(weight, batches, loss_of):
    return only_summed(weight, [[torch.cat(part) for part in zip(*batches, strict=True)]], loss_of)


def by_ratio(reference, measured, width=1.96):
    logs = np.log(np.asarray(measured) / np.asarray(reference))
    return np.exp(logs.mean() + np.array([0, -width, width]) * logs.std(ddof=1))


def signed(secret, headers, body, now):
    from medsam_helpers.mlops.webhooks import sign

    return headers["signature"] == sign(secret, headers["delivery-id"], headers["timestamp"], body)


def with_lora(layer, rank, alpha, *, first=torch.randn, second=torch.zeros, scale=None, freeze=True):
    layer.requires_grad_(not freeze)
    a = torch.nn.Parameter(first(rank, layer.in_features))
    b = torch.nn.Parameter(second(layer.out_features, rank))
    return a, b, lambda x: layer(x) + (scale or alpha / rank) * x @ a.T @ b.T


def mirrored(pixels, target, rng, *, picture=True, lesion=True, draw=lambda rng: rng.random() < 0.5):
    turn = [-1] if draw(rng) else []
    return pixels.flip(turn if picture else []), target.flip(turn if lesion else [])


ANSWERS = [
    ("00.2", lambda *given: ["a", "b", "d"], "comes first"),
    ("00.3", lambda masks: sum(masks) > 0, "255 + 1 is 0"),
    ("00.3", lambda masks: np.max(masks, axis=0) > 127, "full scale"),
    ("01.2", lambda logits, target, a, b: dice_loss(logits, target), "third argument"),
    ("01.2", lambda z, t, *_: dice_loss(z.view(1, 1, -1, 8), t.view(1, 1, -1, 8)), "within each image"),
    ("01.1", focal_loss, "before the mean"),  # its default alpha is not 1
    ("02.4", lambda row, column, *size: cell_to_original(column, row, *size), "from the column"),
    ("02.4", lambda row, column, *size: cell_to_original(row - 0.5, column - 0.5, *size), "upper left corner"),
    ("02.4", lambda row, column, h, w: ((column + 0.5) * w / 256, (row + 0.5) * h / 256), "one scale"),
    ("02.2", lambda patients, rng: rng.random(len(patients)) < 0.2, "on both sides"),
    ("03.3", lambda logits, offset: (logits > offset).sum() / (logits > 0).sum(), "mask at 0"),
    ("03.2", lambda *given: (0, 0, 0), "prediction is right"),
    ("03.2", first_pixel, "larger mistake"),
    ("03.2", lambda *given: first_pixel(*given, largest=True), "at the rim"),
    ("03.2", lambda *given: (*next_click(*given)[:2], 1), "label is 0"),
    ("04.2", only_summed, "2 times too large"),
    ("04.2", lambda *given: only_summed(*given) / len(given[1]), "weigh each by its share"),
    ("04.2", all_at_once, "one batch at a time"),
    ("04.4", lambda *given: (stop(*given)[0], int(np.argmax(given[0]))), "never ran"),
    ("04.4", lambda *given: stop(*given, better=lambda new, old: new >= old), "the earlier stays"),
    ("04.4", without_zero_shot, "epoch 0, the zero-shot model"),
    ("04.3", lambda z, t: own_loss(z, t, mean=False), "one number"),
    ("04.3", lambda z, t: own_loss(z, t, dims=(0, 1, 2, 3)), "within each image"),
    ("04.3", lambda z, t: own_loss((z > 0).float(), t), "no gradient"),
    ("04.3", lambda z, t: own_loss(z, t, eps=0), "NaN"),
    ("05.2", lambda gains, *_: bootstrap_mean(gains)[1:], "draw patients"),
    ("05.2", lambda *given: (0.4, 0.5), "does not hold"),
    ("05.3", lambda *given: "better", "-0.03, -0.01, 120, 0.88, 0.83, False is 'worse', not 'better': all of"),
    ("05.5", lambda *given: np.log(by_ratio(*given)), "logarithms still"),
    ("05.5", lambda r, m: by_ratio(r, m, width=1.96 / len(r) ** 0.5), "root of n"),
    ("06.1", lambda image, boxes, _: [fill_box(box, (60, 90)) for box in boxes], "touches"),
    ("06.1", lambda image, boxes, _: [fill_ellipse(box, (60, 90)) for box in np.add(boxes, [0, 0, 4, 4])], "nearly"),
    ("06.2", lambda points: points[0], "give back 4 numbers: this has 3"),
    ("06.4", lambda box, *given: box.put(range(4), [10, 25, 70, 55]) or box, "compute a new one"),
    ("06.5", lambda masks: masks.any(axis=0).sum() / masks.all(axis=0).sum(), "above the line"),
    ("06.5", lambda masks: masks.all(axis=0).sum() / max(masks.any(axis=0).sum(), 1), "empty"),
    ("07.1", lambda written, arrived: written, "sent again"),
    ("07.1", lambda written, arrived: [each for each in written if each not in arrived], "two times"),
    ("07.2", lambda cases: sha256(str(sorted((c.name, str(c.mask)) for c in cases)).encode()).hexdigest(), "an image"),
    ("07.2", lambda cases: f"{id(cases[0]):032d}", "hash the pixels, not the objects"),
    ("07.4", lambda new, old: bootstrap_mean(new).low > bootstrap_mean(old).high, "case by case"),
    ("07.4", lambda new, old: abs((new - old).mean()) > np.std(new - old) / 4, "worse on every case"),
    ("07.4", lambda new, old: bootstrap_mean(new - old).low >= 0, "not worse is not better"),
    ("07.5", lambda secret, headers, body, now: True, "another secret signed passes"),
    ("07.5", lambda secret, headers, body, now: False, "a genuine hook is refused"),
    ("07.5", signed, "more than 300 seconds ago passes"),
    ("08.1", (0.0129, 0.0037, 0.0249), "the sign"),
    ("08.1", (-0.0036, -0.0076, 0.0002), "at j20"),
    ("08.1", (-0.0129, -0.1, 0.1), "image by image"),
    ("08.2", ["jitter 10", "batch 8"], "batch 8: its interval"),
    ("08.2", ["as it is"], "baseline"),
    ("09.2", partial(with_lora, freeze=False), "train too"),
    ("09.2", lambda *given: [with_lora(*given)[place] for place in (1, 0, 2)], "swapped"),
    ("09.2", partial(with_lora, first=lambda rank, inputs: torch.randn(inputs, rank)), "got (6, 2)"),
    ("09.2", partial(with_lora, first=torch.zeros), "neither ever moves"),
    ("09.2", partial(with_lora, second=torch.randn), "both are random"),
    ("09.2", partial(with_lora, scale=1), "the scale is missing"),
    ("09.3", {"lora_rank": 8, "lora_targets": ["proj", "fc2"]}, "103,936 new weights, 3,936 over"),
    ("09.3", {"lora_rank": 4, "lora_targets": ["qkv"]}, "of the MLPs"),
    ("09.3", {"lora_rank": 4, "lora_targets": ["q_proj"]}, "is no layer of this encoder"),
    ("09.4", partial(mirrored, lesion=False), "the lesion stayed"),
    ("09.4", partial(mirrored, draw=lambda rng: True), "always the same"),
    ("09.4", partial(mirrored, draw=lambda rng: torch.rand(1) < 0.5), "the same `rng`"),
    ("10.2", lambda mask, truth, rng: first_pixel(mask, truth, largest=True), "at the rim"),
    ("10.2", lambda mask, truth, rng: next_click(mask, truth), "always the same"),
    ("10.3", lambda runs, bound: runs.clicks[runs.change >= -bound].idxmin(), "not the mean"),
    ("10.3", lambda runs, bound: "boxes", "few clicks keeps it too"),
    ("10.4", lambda logits: logits > 0, "doubtful speck of 9 pixels"),
    ("10.4", lambda logits: logits > -5, "got lost or changed"),
    ("10.4", lambda logits: ndimage.label(logits > 0)[0] == 1, "second lesion"),
]


@pytest.mark.parametrize("exercise", checking.ANSWERS["numbers"])
def test_each_known_number_gets_what_is_said_of_it(capsys, exercise):
    numbers = checking.ANSWERS["numbers"][exercise]
    told = [(torch.tensor(numbers["right"]), "correct"), *numbers["known"]]
    for answer, verdict in [*told, *((other, numbers["otherwise"]) for other in (-1, torch.zeros(2)))]:
        check(exercise, answer)
        assert verdict in capsys.readouterr().out


@pytest.mark.parametrize("exercise", checking.ANSWERS["calls"])
def test_each_known_answer_of_a_function_gets_what_is_said_of_it(capsys, exercise):
    calls = checking.ANSWERS["calls"][exercise]
    rights = [call["right"] for call in calls]
    for place, (call, right) in enumerate(zip(calls, rights, strict=True)):
        other = "neither" if isinstance(right, bool | str) else np.full_like(right, -1, float)
        for wrong, verdict in [*call.get("known", []), (other, call["otherwise"])]:
            check(exercise, Mock(side_effect=[*rights[:place], wrong]))
            assert verdict in capsys.readouterr().out
    check(exercise, Mock(side_effect=rights))
    assert "correct" in capsys.readouterr().out


@pytest.mark.parametrize(("exercise", "answer", "verdict"), ANSWERS)
def test_what_is_said_of_an_answer(capsys, exercise, answer, verdict):
    check(exercise, answer)
    assert verdict in capsys.readouterr().out
