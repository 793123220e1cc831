"""Phantoms: deterministic by seed, of the promised sizes and areas, kept in the cache, saved as a folder."""

import numpy as np
import pytest

from medsam_helpers.data.case import Case
from medsam_helpers.data.loading import load_data
from medsam_helpers.errors import ConfigError
from medsam_helpers.phantoms import dataset as phantoms
from medsam_helpers.phantoms.dataset import KINDS, draw_phantom, phantom_dataset, save_folder


@pytest.mark.parametrize("kind", KINDS)
def test_types_sizes_and_areas(kind):
    drawn = [draw_phantom(kind, np.random.default_rng([7, index])) for index in range(12)]
    for image, mask in drawn:
        assert (image.dtype, mask.dtype, image.shape) == (np.uint8, np.bool_, (*mask.shape, 3))
        assert mask.shape[0] < mask.shape[1]
        assert 360 <= mask.shape[1] <= 620
        assert 0.01 <= mask.mean() <= 0.5
    again = draw_phantom(kind, np.random.default_rng([7, 0]))  # whatever was drawn before
    assert all(map(np.array_equal, drawn[0], again))


def test_a_case_depends_on_seed_split_and_place_alone():
    small = phantom_dataset("ultrasound", n_train=1, n_dev=1, n_val=1)
    large = phantom_dataset("ultrasound", n_train=50, n_dev=9, n_val=2)
    assert small.train.names == ["ultrasound-train-0000"]
    with pytest.raises(ValueError, match="read-only"):  # the case is shared by all who ask for it
        small.val[0].image[0, 0] = 0
    for split in ("train", "dev", "val"):
        assert getattr(small, split)[0].digest == getattr(large, split)[0].digest
    other = phantom_dataset("ultrasound", n_train=1, n_dev=1, n_val=1, seed=1)
    cases = [data.train[0] for data in (small, other)] + [small.dev[0], small.val[0], large.train[1]]
    assert len({case.digest for case in cases}) == len(cases)


def test_bad_arguments():
    with pytest.raises(ConfigError, match="phantom kind 'mri' is unknown: use 'endoscopy' or 'ultrasound'"):
        phantom_dataset("mri")
    with pytest.raises(ConfigError, match=r"n_val is 2\.5: use a whole number from 0 up"):
        phantom_dataset(n_val=2.5)


def test_saved_and_read_it_is_the_same_and_what_is_not_an_empty_folder_is_left_alone(tmp_path):
    data = phantom_dataset("ultrasound", n_train=2, n_dev=1, n_val=1)
    save_folder(data, tmp_path / "new" / "phantoms")
    back = load_data(tmp_path / "new" / "phantoms")
    read, drawn = ({c.name: c.digest for split in each.splits.values() for c in split} for each in (back, data))
    assert read == drawn
    names = [{split: sorted(cases.names) for split, cases in each.splits.items()} for each in (back, data)]
    assert names[0] == names[1]
    (tmp_path / "mine.txt").write_text("precious")
    for place in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(ConfigError, match=r"is not an empty folder|cannot be a folder"):
            save_folder(data, place)
    assert {path.name for path in tmp_path.iterdir()} == {"new", "mine.txt"}


@pytest.mark.parametrize("kept", [1, 0.5])
def test_a_kept_phantom_is_the_drawn_one_and_a_damaged_file_is_drawn_again(cache, kept):
    phantoms._load_case.cache_clear()  # so that cases come from the cache folder
    phantom_dataset(n_val=1).val[0]
    (path,) = (cache / "phantoms").rglob("*.png")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    phantoms._load_case.cache_clear()
    case = phantom_dataset(n_val=1).val[0]
    phantoms._load_case.cache_clear()
    assert path.read_bytes() == whole
    image, mask = draw_phantom("endoscopy", np.random.default_rng([0, 2, 0]))
    assert case.digest == Case("drawn anew", image, mask).digest
