"""What others published, as the notebooks show it: every row names its source, and what was derived adds up."""

import re

import notebook_rules as rules
import pandas as pd
import pytest

FOLDER = rules.ROOT / "notebooks" / "results" / "published"


@pytest.mark.parametrize("name", ["medsam_dice.csv", "medsam_versions.csv"])
def test_every_row_names_its_source(name):
    sources = pd.read_csv(FOLDER / name, dtype=str)["source"]
    assert len(sources) > 0
    assert sources.str.contains(r"doi:10\.|arXiv:\d{4}\.\d{5}|model card").all()


def test_derived_scores_are_the_stated_one_less_the_stated_difference():
    table = pd.read_csv(FOLDER / "medsam_dice.csv")
    assert table["derived"].any()
    for row in table[table["derived"]].itertuples():
        (stated,) = table[(table["task"] == row.task) & ~table["derived"]]["dice"]
        assert row.dice == pytest.approx(stated - float(re.search(r"(\d+\.\d) below", row.source)[1]))
