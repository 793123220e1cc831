"""Pictures of a recorded sweep."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from medsam_helpers.mlops.pictures import draw_history, draw_importances, draw_parallel_coordinates


def test_a_recorded_sweep_is_drawn():
    """Twenty trials, four of them pruned; the learning rate alone decides the first epoch."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"trial": range(20), "state": [*["complete"] * 4, "pruned"] * 4, "batch": 4})
    table["lr"], table["weight_decay"] = 10 ** rng.uniform(-5, -3, 20), 10 ** rng.uniform(-4, -1, 20)
    table["first_dice"], table["dev_dice"] = table["lr"] * 900, table["weight_decay"]
    table["loss"], table["jitter_1024"] = rng.choice(["sam", "dice_ce"], 20), rng.choice([0.0, 20.0], 20)
    history, importances = Figure().subplots(1, 2)
    draw_history(history, table)
    assert history.get_legend_handles_labels()[1] == ["complete: 16", "pruned: 4", "best"]
    draw_importances(importances, table)
    assert importances.get_yticklabels()[-1].get_text() == "lr", "the top bar"
    shown = draw_parallel_coordinates(table)
    assert "lr" in [label.get_text() for label in shown.get_xticklabels()]
    (lines,) = shown.collections
    assert sum(lines.cmap(1.0)[:3]) < sum(lines.cmap(0.0)[:3])  # dark is good
    plt.close("all")
