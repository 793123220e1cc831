"""Seeded splits: every case in one of them, of the promised sizes, whatever order the names come in."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medsam_helpers.data.splits import groups_of, make_splits, seeded_order
from medsam_helpers.errors import DataError


@settings(max_examples=50)
@given(st.sets(st.text(min_size=1, max_size=4), max_size=40), st.integers(0, 3), st.data())
def test_splits_part_the_cases_and_keep_the_order_of_the_others(cases, seed, data):
    splits = make_splits(sorted(cases), seed)
    assert sorted(splits["train"] + splits["dev"] + splits["val"]) == sorted(cases)
    assert len(splits["val"]) == (max(1, len(cases) // 5) if len(cases) > 1 else 0)
    trained = len(splits["train"]) + len(splits["dev"])
    assert len(splits["dev"]) == (max(1, trained // 10) if trained > 1 else 0)
    shuffled = data.draw(st.permutations(sorted(cases)))
    assert make_splits(shuffled, seed) == splits
    fewer = shuffled[: len(shuffled) // 2]
    assert seeded_order(fewer, seed) == [name for name in seeded_order(shuffled, seed) if name in set(fewer)]


def test_a_group_stays_in_one_split_and_a_list_that_parts_one_is_refused():
    names = [f"p{number // 3}_{number}" for number in range(60)]
    group_of = groups_of(names, r"^(p\d+)_")
    assert group_of["p2_7"] == "p2"
    splits = make_splits(names, 0, None, group_of)
    owners = [{group_of[name] for name in members} for members in splits.values()]
    assert sum(map(len, owners)) == len(set().union(*owners)) == 20
    assert (len(splits["val"]), len(splits["dev"])) == (12, 6)
    with pytest.raises(DataError, match=r"p2_7: in train and in val \(group p2\)"):
        make_splits(names, 0, {"train": ["p2_6"], "val": ["p2_7"]}, group_of)


def test_groups_come_from_a_table_and_every_case_needs_one(tmp_path):
    (tmp_path / "patients.csv").write_text("name,patient\n001,A\n002,A\n")
    assert groups_of(["001", "002"], str(tmp_path / "patients.csv")) == {"001": "A", "002": "A"}
    with pytest.raises(DataError, match=r"gives no group to 1 of 1 cases \(003\): a pattern must"):
        groups_of(["003"], str(tmp_path / "patients.csv"))
    with pytest.raises(DataError, match="no such file, and no pattern"):
        groups_of(["003"], "(")
