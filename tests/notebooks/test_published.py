"""What others published, as the notebooks show it: every row names its source, and what was derived adds up."""

import re
from pathlib import Path

import pandas as pd
import pytest

FOLDER = Path(__file__).parents[2] / "notebooks" / "results" / "published"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("medsam_*.csv")), ids=lambda path: path.stem)
def test_every_row_names_its_source(path):
    table = pd.read_csv(path, dtype=str)
    assert len(table) > 0
    assert table["source"].str.contains(r"doi:10\.|arXiv:\d{4}\.\d{5}|model card").all()


def test_derived_scores_are_the_stated_one_less_the_stated_difference():
    table = pd.read_csv(FOLDER / "medsam_dice.csv")
    assert table["derived"].any()
    for row in table[table["derived"]].itertuples():
        (stated,) = table[(table["task"] == row.task) & ~table["derived"]]["dice"]
        difference = float(re.search(r"(\d+\.\d) below", row.source).group(1))
        assert row.dice == pytest.approx(stated - difference)
