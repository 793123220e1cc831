"""Checkers of notebook 07, the MLOps pipeline."""

import base64
import hashlib
import hmac
from dataclasses import replace

import numpy as np

from medsam_helpers.data.case import Case
from medsam_helpers.exercises.checking import Answer, Hints, checker


@checker("07.1")
def _to_send(answer: Answer) -> Hints:
    # name, step, time in milliseconds, value
    written = [("loss", 0, 10, 0.9), ("lr", 0, 10, 0.001), ("loss", 1, 20, 0.8), ("lr", 1, 20, 0.001)]
    written += [("loss", 2, 30, 0.7), ("loss", 2, 30, 0.7), ("lr", 2, 30, 0.001), ("loss", 1, 40, 0.5)]
    arrived = [written[3], written[0]]
    found = [tuple(point) for point in answer(list(written), list(arrived))]
    if again := set(found) & set(arrived):
        yield f"{min(again)} has arrived and is sent again"
    if missing := [point for point in written if point not in found and point not in arrived]:
        yield f"{missing[0]} is never sent: a point has arrived if all four of its parts are equal, not some"
    if len(set(found)) < len(found):
        yield "a point that stands in the journal two times is sent two times: once will do"
    if found != list(dict.fromkeys(point for point in written if point not in arrived)):
        yield "send the points in the order in which they were written, and none that was not"


@checker("07.2")
def _digest_of_a_split(answer: Answer) -> Hints:
    rng = np.random.default_rng(7)
    cases = [Case(f"case-{i}", rng.integers(0, 256, (9, 7, 3), np.uint8), rng.random((9, 7)) < 0.4) for i in range(3)]
    image, mask = cases[1].image.copy(), cases[1].mask.copy()
    image[-1, -1, -1] ^= 1
    mask[0, 0] ^= True
    changed = {
        "one pixel of an image": [cases[0], replace(cases[1], image=image), cases[2]],
        "one pixel of a mask": [cases[0], replace(cases[1], mask=mask), cases[2]],
        "a case's name": [cases[0], replace(cases[1], name="renamed"), cases[2]],
        "a case that is gone": cases[:2],
    }
    digest = answer(list(cases))
    if not isinstance(digest, str) or not 16 <= len(digest) <= 64:
        yield "give back a text of 16 to 64 characters, such as `hexdigest` does"
    if answer([replace(case) for case in cases]) != digest:
        yield "equal cases have another digest when they are loaded anew: hash the pixels, not the objects"
    for what, other in changed.items():
        if answer(other) == digest:
            yield f"{what} does not change the digest"
    if answer(cases[::-1]) != digest:
        yield "the same cases in another order are the same data set: sort before you hash"


@checker("07.4")
def _gate(answer: Answer) -> Hints:
    rng = np.random.default_rng(3)
    champion = rng.uniform(0.4, 0.95, 60)  # cases differ far more than models do
    lucky = champion + np.where(np.arange(60) == 0, 0.5, rng.normal(0, 0.02, 60))
    steady = champion + rng.normal(0.02, 0.01, 60)
    if not answer(steady, champion):
        yield "0.02 better on nearly every case is not promoted: take differences case by case, then resample"
    for challenger, hint in (
        (lucky, "a gain that one case of 60 makes is promoted: ask for an interval above zero, not for a mean"),
        (champion - 0.02, "a model that is worse on every case is promoted"),
        (champion.copy(), "a model that is equal on every case is promoted: not worse is not better"),
    ):
        if answer(challenger, champion):
            yield hint


@checker("07.5")
def _genuine_hook(answer: Answer) -> Hints:
    secret, body, now = "of this exercise", b'{"entity": "model_version_alias"}', 1_800_000_000

    def hook(delivery: str = "d", at: int = now, key: str = secret, signed: bytes = body) -> dict[str, str]:
        value = hmac.new(key.encode(), f"{delivery}.{at}.".encode() + signed, hashlib.sha256).digest()
        signature = "v1," + base64.b64encode(value).decode()
        return {"delivery-id": delivery, "timestamp": str(at), "signature": signature}

    for headers, hint in (
        (hook(key="another"), "a hook that another secret signed passes"),
        (hook(signed=b"{}"), "a hook whose body was exchanged passes: the body is part of what is signed"),
        (hook() | {"delivery-id": "other"}, "a hook with another delivery id passes: the id is part of what is signed"),
        (hook("old", at=now - 301), "a hook of more than 300 seconds ago passes"),
        (hook("early", at=now + 301), "a hook from more than 300 seconds in the future passes"),
    ):
        if answer(secret, headers, body, now):
            yield hint
    if not answer(secret, hook(), body, now):
        yield "a genuine hook is refused: sign delivery id, timestamp and body, joined by dots"
    if not answer(secret, hook(at=now - 299), body, now):
        yield "a genuine hook of 299 seconds ago is refused"
