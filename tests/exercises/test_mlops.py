"""The checkers of notebook 07: right answers pass, each typical mistake gets its hint."""

import base64
import hashlib
import hmac

import numpy as np
import pytest

from medsam_helpers.evaluation.tables import bootstrap_mean
from medsam_helpers.exercises import check


def verdict(capsys, number, answer):
    check(number, answer)
    return capsys.readouterr().out.strip()


def digest(cases, *, names=True, images=True, masks=True, order=sorted):
    lines = order(
        (case.name if names else "")
        + (case.image.tobytes().hex() if images else "")
        + (case.mask.tobytes().hex() if masks else "")
        for case in cases
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "07.1: correct"),
        ({"images": False}, "one pixel of an image does not"),
        ({"masks": False}, "one pixel of a mask does not"),
        ({"names": False}, "a case's name does not"),
        ({"order": list}, "sort before you hash"),
    ],
)
def test_digest(capsys, options, said):
    assert said in verdict(capsys, "07.1", lambda cases: digest(cases, **options))


def test_digest_of_something_else(capsys):
    assert "hash the pixels, not the objects" in verdict(capsys, "07.1", lambda cases: f"{id(cases[0]):032d}")
    assert "give back a text" in verdict(capsys, "07.1", len)
    assert verdict(capsys, "07.1", lambda cases: None) == "07.1: not attempted yet"


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        (lambda new, old: bootstrap_mean(new - old).low > 0, "07.2: correct"),
        (lambda new, old: new.mean() > old.mean(), "one case of 60 makes"),
        (lambda new, old: bootstrap_mean(new).low > bootstrap_mean(old).high, "case by case"),
        (lambda new, old: bootstrap_mean(new - old).high < 1, "one case of 60 makes"),
        (lambda new, old: abs((new - old).mean()) > np.std(new - old) / 4, "worse on every case"),
        (lambda new, old: bootstrap_mean(new - old).low >= 0, "not worse is not better"),
    ],
)
def test_gate(capsys, gate, said):
    assert said in verdict(capsys, "07.2", gate)


def genuine(secret, headers, body, now, seen, *, what="all"):
    parts = [headers["delivery-id"], headers["timestamp"], body.decode()]
    if what == "no body":
        parts = parts[:2]
    value = hmac.new(secret.encode(), ".".join(parts).encode(), hashlib.sha256).digest()
    if what != "no signature" and headers["signature"] != "v1," + base64.b64encode(value).decode():
        return False
    age = now - int(headers["timestamp"])
    if what != "no age" and (age if what == "one side" else abs(age)) > (100 if what == "short" else 300):
        return False
    if what != "no memory" and headers["delivery-id"] in seen:
        return False
    seen.add(headers["delivery-id"])
    return True


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("all", "07.3: correct"),
        ("no signature", "another secret signed passes"),
        ("no body", "a genuine hook is refused"),
        ("no age", "more than 300 seconds ago passes"),
        ("one side", "in the future passes"),
        ("no memory", "the same hook passes twice"),
        ("short", "of 299 seconds ago is refused"),
    ],
)
def test_hook(capsys, what, said):
    def answer(secret, headers, body, now, seen):
        return genuine(secret, headers, body, now, seen, what=what)

    assert said in verdict(capsys, "07.3", answer)
