"""Cases, lazy sequences of them, and digests that notice one pixel."""

import numpy as np
import pytest

from medsam_helpers.data.case import Case, Cases, Dataset
from medsam_helpers.errors import DataError


def blank(name: str = "a", height: int = 4, width: int = 6) -> Case:
    return Case(name, np.zeros((height, width, 3), np.uint8), np.ones((height, width), bool))


def test_a_case_refuses_other_types_and_sizes_and_names_itself():
    case = blank()
    with pytest.raises(DataError, match=r"polyp-7: .*image must be .* float32"):
        Case("polyp-7", case.image.astype(np.float32), case.mask)
    with pytest.raises(DataError, match=r"polyp-7: .*mask must be bool of the image's size"):
        Case("polyp-7", case.image, case.mask.T)


def test_digests_notice_one_pixel_and_the_shape_but_not_the_layout_in_memory():
    case = blank()
    image, mask = case.image.copy(), case.mask.copy()
    image[3, 5, 2], mask[0, 0] = 1, False
    assert blank().digest == case.digest
    assert Case("a", image, case.mask).image_digest != case.image_digest
    assert Case("a", case.image, mask).image_digest == case.image_digest
    assert len({case.digest, Case("a", image, case.mask).digest, Case("a", case.image, mask).digest}) == 3
    assert blank(height=4, width=6).image_digest != blank(height=6, width=4).image_digest
    flipped = np.ascontiguousarray(image[:, ::-1])
    assert Case("a", flipped[:, ::-1], mask).digest == Case("a", image, mask).digest


def test_cases_decode_only_what_is_asked_for():
    loaded = []
    cases = Cases(["a", "b", "c"], lambda name: (loaded.append(name), blank(name))[1])
    assert (len(cases), cases[1:].names, loaded) == (3, ["b", "c"], [])
    assert (cases[-1].name, cases[np.int64(0)].name, loaded) == ("c", "a", ["c", "a"])
    with pytest.raises(IndexError):
        cases[3]


def test_dataset_digest_notices_a_case_that_moves_and_a_pixel_that_changes():
    def dataset(train: str, val: str, height: int = 4) -> Dataset:
        train, dev, val = (Cases(names.split(), lambda name: blank(name, height)) for names in (train, "", val))
        return Dataset("some", train, dev, val, "", "")

    base, same = dataset("a b", "c"), dataset("b a", "c")
    renamed, moved, other = dataset("a d", "c"), dataset("a", "b c"), dataset("a b", "c", height=5)
    assert base.digest == same.digest
    assert len({base.digest, renamed.digest, moved.digest, other.digest}) == 4
    assert str(base) == "some: 2 train, 0 dev, 1 val"
