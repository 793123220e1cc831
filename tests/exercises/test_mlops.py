"""Checkers of notebook 07: a right answer is correct, each kind of wrong one gets its hint."""

import base64
import hashlib
import hmac
from functools import partial

import numpy as np
from verdicts import says

from medsam_helpers.evaluation.tables import bootstrap_mean


def digest(cases, *, without="", order=sorted):
    parts = {"name": lambda c: c.name, "image": lambda c: c.image.tobytes().hex(), "mask": lambda c: str(c.mask)}
    lines = order("".join(part(case) for name, part in parts.items() if name != without) for case in cases)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


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


test_what_is_said_of_an_answer = says(
    ("07.1", digest, "correct"),
    ("07.1", partial(digest, without="image"), "one pixel of an image does not"),
    ("07.1", partial(digest, order=list), "sort before you hash"),
    ("07.1", lambda cases: f"{id(cases[0]):032d}", "hash the pixels, not the objects"),
    ("07.1", len, "give back a text"),
    ("07.2", lambda new, old: bootstrap_mean(new - old).low > 0, "correct"),
    ("07.2", lambda new, old: bootstrap_mean(new).low > bootstrap_mean(old).high, "case by case"),
    ("07.2", lambda new, old: new.mean() > old.mean(), "one case of 60 makes"),
    ("07.2", lambda new, old: abs((new - old).mean()) > np.std(new - old) / 4, "worse on every case"),
    ("07.2", lambda new, old: bootstrap_mean(new - old).low >= 0, "not worse is not better"),
    ("07.3", genuine, "correct"),
    ("07.3", partial(genuine, what="no signature"), "another secret signed passes"),
    ("07.3", partial(genuine, what="no body"), "a genuine hook is refused"),
    ("07.3", partial(genuine, what="no age"), "more than 300 seconds ago passes"),
    ("07.3", partial(genuine, what="one side"), "in the future passes"),
    ("07.3", partial(genuine, what="no memory"), "the same hook passes twice"),
    ("07.3", partial(genuine, what="short"), "of 299 seconds ago is refused"),
)
