"""Several data sets are one, in which nothing gets lost, mixed up or seen twice."""

import shutil

import numpy as np
import pytest
from helpers import patchwork, save_images

from medsam_helpers.data.audit import audit
from medsam_helpers.data.case import Case, Cases
from medsam_helpers.data.loading import load_data
from medsam_helpers.errors import ConfigError, DataError

MASK = np.pad(np.ones((20, 20), bool), 22)


@pytest.fixture
def two(tmp_path):
    """Folders of 8 and 4 cases: the files of both have the same names, and the pictures nothing in common."""
    for first, (place, count) in enumerate({"near": 8, "far": 4}.items()):
        names = [f"p{number}" for number in range(count)]
        load = {name: Case(name, patchwork(100 * first + number), MASK) for number, name in enumerate(names)}
        save_images(Cases(names, load.__getitem__), tmp_path / place)
    (tmp_path / "far" / "val.txt").write_text("p1\n")
    return tmp_path / "near", tmp_path / "far", f"{tmp_path / 'near'},{tmp_path / 'far'}"


def test_each_case_is_itself_in_the_split_that_its_own_set_gives_it(two):
    whole, parts = load_data(f"{two[0]}, {two[1]}", group_by="p[0-7]"), [load_data(place) for place in two[:2]]
    for split, cases in whole.splits.items():
        alone = {f"{part.name}::{case.name}": case.digest for part in parts for case in part.splits[split]}
        assert {case.name: case.digest for case in cases} == alone
    assert str(whole) == "near + far: 8 train, 2 dev, 2 val"
    assert whole.group_of["near::p1"] != whole.group_of["far::p1"], "patients of two hospitals are two"


def test_what_is_bad_is_named_with_its_set_or_left_out(two):
    (two[1] / "images" / "p2.png").write_bytes(b"no image")
    assert set(audit(two[2], show_progress=False).errors.case) == {"far::p2"}
    with pytest.raises(DataError, match=r"near \+ far: 1 bad case"):
        load_data(two[2])
    assert "far::p2" not in [name for cases in load_data(two[2], skip_bad=True).splits.values() for name in cases.names]


def test_a_training_image_of_one_that_is_a_scoring_image_of_the_other_is_refused_or_left_out(two):
    scored = load_data(two[0]).val.names[0]
    for part in ("images", "masks"):
        shutil.copy(two[0] / part / f"{scored}.png", two[1] / part / "copy.png")
    (two[1] / "train.txt").write_text("copy\np0\np2\np3\n")
    with pytest.raises(DataError, match=f"far::copy looks like near::{scored}"):
        load_data(two[2])
    assert load_data(two[2], drop_duplicates=True).left_out == (f"far::copy: looks like near::{scored}",)


def test_what_cannot_be_joined_is_refused(two):
    with pytest.raises(ConfigError, match="phantom is drawn"):
        load_data(f"{two[0]},phantom")
    with pytest.raises(DataError, match="near, near: two data sets of one name"):
        load_data(f"{two[0]},{two[0]}")
