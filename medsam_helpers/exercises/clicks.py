"""Checkers of notebook 10, clicks and no prompt."""

import numpy as np
import pandas as pd

from medsam_helpers.exercises.checking import Answer, Hints, checker
from medsam_helpers.exercises.how_sam_works import click_hints, mistakes


@checker("10.2")
def _next_click(answer: Answer) -> Hints:
    for mistake in mistakes():
        yield from click_hints(answer(*mistake[:2], None), mistake)
        clicks = [tuple(answer(*mistake[:2], np.random.default_rng(seed))) for seed in [0, 0, *range(1, 30)]]
        for click in clicks:
            yield from click_hints(click, mistake, least_depth=0)
        if clicks[0] != clicks[1]:
            yield "the same `rng` gave two clicks: draw from it alone, or no run can be resumed"
        if len(set(clicks)) < 10:
            yield "with `rng` draw any pixel of the mistake, not always the same"


@checker("10.3")
def _under_a_bound(answer: Answer) -> Hints:
    rows = {"boxes": [2.6, 0, 0], "few clicks": [2.2, -0.004, -0.009], "many clicks": [1.9, -0.008, -0.014]}
    runs = pd.DataFrame.from_dict(rows, "index", columns=["clicks", "change", "low"])
    for order in ([0, 1, 2], [2, 0, 1]):
        for bound, right in ((0.01, "few clicks"), (0.02, "many clicks"), (0.001, "boxes")):
            if (said := answer(runs.iloc[order].copy(), bound)) == right:
                continue
            if said not in rows:
                yield f"give back the name of a row, got {said!r}"
            if runs.low[said] < -bound:
                yield f"with a bound of {bound:g}, {said} may lose {-runs.low[said]:g}: `low` counts, not the mean"
            yield f"with a bound of {bound:g}, {right} keeps it too and needs fewer clicks than {said}"


@checker("10.4")
def _kept_by_a_rule(answer: Answer) -> Hints:
    y, x = np.ogrid[:96, :128]
    lesion, second = ((x - at) ** 2 + (y - 48) ** 2 < 15**2 for at in (30, 95))
    speck = (abs(x - 64) < 2) & (abs(y - 10) < 2)
    none = np.full((96, 128), -4.0)
    mask = np.asarray(answer(np.where(lesion, 5.0, none)))
    if mask.shape != none.shape or mask.dtype != np.bool_:
        yield f"give back a mask, bool and of the shape of the logits: got {mask.dtype} {mask.shape}"
    if (mask != lesion).mean() > 0.01:
        yield "a large, certain lesion got lost or changed: the mask is where the logits are above 0"
    if answer(none).any():
        yield "where no logit is above 0 there is nothing: the mask stays empty"
    if (answer(np.where(lesion | second, 5.0, none)) != (lesion | second)).mean() > 0.01:
        yield "the second lesion got lost: an image may hold several"
    if answer(np.where(speck, 0.5, none)).any():
        yield f"a doubtful speck of {speck.sum()} pixels (logit 0.5) is kept: ask for an area, for a peak, or for both"
