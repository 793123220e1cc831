"""Seeded splits: every case in one of them, of the promised sizes, whatever order the names come in."""

from hypothesis import given, settings
from hypothesis import strategies as st

from medsam_helpers.data.splits import make_splits, seeded_order


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
