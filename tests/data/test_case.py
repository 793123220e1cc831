"""Cases, lazy sequences of them, and digests that notice one pixel."""

import numpy as np
import pytest

from medsam_helpers.data.case import Case, Cases, Dataset
from medsam_helpers.errors import DataError


def blank(name: str = "a", height: int = 4, width: int = 6) -> Case:
    return Case(name, np.zeros((height, width, 3), np.uint8), np.ones((height, width), bool))


@pytest.mark.parametrize(
    ("image", "mask", "words"),
    [
        (np.zeros((4, 6, 4), np.uint8), np.zeros((4, 6), bool), "image must be"),
        (np.zeros((4, 6, 3), np.float32), np.zeros((4, 6), bool), "float32"),
        (np.zeros((4, 6, 3), np.uint8), np.zeros((6, 4), bool), "mask must be bool of the image's size"),
    ],
)
def test_a_case_refuses_other_dtypes_and_sizes_and_names_itself(image, mask, words):
    with pytest.raises(DataError, match=f"polyp-7: .*{words}"):
        Case("polyp-7", image, mask)


def test_digests_notice_one_pixel_and_tell_image_from_mask():
    case = blank()
    image, mask = case.image.copy(), case.mask.copy()
    image[3, 5, 2], mask[0, 0] = 1, False
    other_image, other_mask = Case("a", image, case.mask), Case("a", case.image, mask)
    assert other_image.digest != case.digest
    assert other_image.image_digest != case.image_digest
    assert other_mask.digest != case.digest
    assert other_mask.image_digest == case.image_digest
    assert blank().digest == case.digest


def test_digest_notices_the_shape_of_equal_bytes_and_not_their_layout_in_memory():
    assert blank(height=4, width=6).image_digest != blank(height=6, width=4).image_digest
    image = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)
    flipped = np.ascontiguousarray(image[:, ::-1])
    assert Case("a", flipped[:, ::-1], blank().mask).digest == Case("a", image, blank().mask).digest


def test_cases_decode_only_what_is_asked_for():
    loaded = []
    cases = Cases(["a", "b", "c"], lambda name: (loaded.append(name), blank(name))[1])
    assert (len(cases), cases[1:].names, loaded) == (3, ["b", "c"], [])
    assert cases[-1].name == "c"
    assert cases[np.int64(0)].name == "a"
    assert loaded == ["c", "a"]
    assert [case.name for case in cases[:2]] == ["a", "b"]
    with pytest.raises(IndexError):
        cases[3]


def test_dataset_digest_notices_a_case_that_moves_and_a_pixel_that_changes():
    def scratched(name: str) -> Case:
        image = np.zeros((4, 6, 3), np.uint8)
        image[0, 0, 0] = name == "b"
        return Case(name, image, np.ones((4, 6), bool))

    def dataset(train: str, val: str, load=blank) -> Dataset:
        return Dataset("some", Cases(train.split(), load), Cases([], load), Cases(val.split(), load), "", "")

    base, same = dataset("a b", "c"), dataset("b a", "c")
    renamed, moved, pixel = dataset("a d", "c"), dataset("a", "b c"), dataset("a b", "c", scratched)
    assert base.digest == same.digest
    assert len({base.digest, renamed.digest, moved.digest, pixel.digest}) == 4
    assert str(base) == "some: 2 train, 0 dev, 1 val"
    assert list(base.splits) == ["train", "dev", "val"]
