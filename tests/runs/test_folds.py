"""Folds, and data sets put together: every case scored once, near-duplicates together, nothing twice."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import patchwork

from medsam_helpers.data.case import Case, Cases, Dataset
from medsam_helpers.errors import ConfigError, DataError
from medsam_helpers.runs.finetune import balanced
from medsam_helpers.runs.folds import everything, make_folds, with_training_of


def dataset_of(count, prefix="case", same=(), turned=False):
    """Pictures that have nothing in common; those in `same` show the first of them, a little brighter."""

    def load(name):
        number = int(name.split("-")[1])
        image = patchwork(0) + np.uint8(20) if number in same else patchwork(number)
        return Case(name, image, np.ones((64, 64), bool))

    cases = Cases([f"{prefix}-{number}" for number in range(count)][:: -1 if turned else 1], load)
    return Dataset(prefix, cases[:-4], cases[-4:-2], cases[-2:], "licence", "citation")


def test_every_case_is_scored_once_and_never_by_a_model_that_saw_it():
    dataset = dataset_of(23)
    folds = make_folds(dataset, 5)
    assert sorted(name for fold in folds for name in fold.val.names) == sorted(everything(dataset).names)
    assert sorted(len(fold.val) for fold in folds) == [4, 4, 5, 5, 5]
    for fold in folds:
        parts = [set(cases.names) for cases in fold.splits.values()]
        assert sum(map(len, parts)) == len(set.union(*parts)) == 23
        assert len(fold.dev) == len(fold.train.names + fold.dev.names) // 10
    assert folds[1].name == "case, fold 2 of 5"


def test_folds_depend_neither_on_the_order_of_the_files_nor_on_the_splits():
    first, second = (make_folds(dataset_of(12, turned=turned), 3) for turned in (False, True))
    assert [fold.digest for fold in first] == [fold.digest for fold in second]
    assert [fold.val.names for fold in first] != [fold.val.names for fold in make_folds(dataset_of(12), 3, seed=1)]


def test_near_duplicates_stay_in_one_fold():
    folds = make_folds(dataset_of(20, same=(7, 13)), 5)
    alike = {"case-0", "case-7", "case-13"}
    assert [alike & set(fold.val.names) for fold in folds].count(alike) == 1


def test_too_few_folds_or_cases_are_refused():
    with pytest.raises(ConfigError, match="folds must be 2 or more, is 1"):
        make_folds(dataset_of(6), 1)
    with pytest.raises(DataError, match="6 cases are too few for 7 folds"):
        make_folds(dataset_of(6), 7)


def test_balanced_sets_have_as_many_cases_as_the_largest():
    names = balanced(Cases(["a::1", "b::1", "a::2", "a::3", "b::2"], {}.get)).names
    assert sorted(names) == ["a::1", "a::2", "a::3", "b::1", "b::1", "b::2"]


def test_training_cases_of_another_set_join_train_and_dev_only():
    own, other = dataset_of(10), dataset_of(9, "guest")
    both = with_training_of(own, other)
    assert both.train.names == own.train.names + other.train.names
    assert both.dev.names == own.dev.names + other.dev.names
    assert both.val.names == own.val.names
    assert both.train[-1].digest == other.train[-1].digest
    assert both.name == "case, with 5 training cases of guest"
    with pytest.raises(DataError, match=r"case-0.*in more than one of the data sets"):
        with_training_of(own, own)


def test_cases_of_one_group_stay_in_one_fold():
    dataset = replace(dataset_of(20), group_of={f"case-{number}": f"patient {number // 4}" for number in range(20)})
    for fold in make_folds(dataset, 4):
        held = {dataset.group_of[name] for name in fold.val.names}
        assert not held & {dataset.group_of[name] for name in fold.train.names + fold.dev.names}
