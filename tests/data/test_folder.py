"""Folders: split files and limits, what a broken one says, and real ones as they are published."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medsam_helpers.data.folder import index_folder
from medsam_helpers.data.sources import load_data
from medsam_helpers.errors import DataError

LESION = np.array([[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 0, 0]], bool)


def add_case(folder: Path, stem: str, mask: np.ndarray = LESION) -> None:
    pixels = np.random.default_rng([0, *stem.encode()]).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    for part, picture in {"images": pixels, "masks": mask}.items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / part / f"{stem}.png")


@pytest.fixture
def folder(tmp_path) -> Path:
    for number in range(20):
        add_case(tmp_path / "data", f"case-{number:02d}")
    return tmp_path / "data"


def names(data) -> dict[str, list[str]]:
    return {"train": data.train.names, "dev": data.dev.names, "val": data.val.names}


def test_without_split_files_a_fifth_is_val_and_a_tenth_of_the_rest_dev(folder):
    data = load_data(folder)
    assert str(data) == "data: 15 train, 1 dev, 4 val"
    everything = data.train.names + data.dev.names + data.val.names
    assert sorted(everything) == [f"case-{number:02d}" for number in range(20)]
    assert names(load_data(folder, split_seed=1)) != names(data)
    assert pickle.loads(pickle.dumps(data)).digest == load_data(folder).digest


def test_split_files_are_kept_and_may_hold_blank_lines_or_nothing(folder):
    (folder / "train.txt").write_bytes(b"\xef\xbb\xbfcase-00\r\n\r\n  case-01 \n")
    (folder / "val.txt").write_text("\ncase-02\n\n")
    data = load_data(folder)
    assert data.val.names == ["case-02"]
    assert sorted(data.train.names + data.dev.names) == ["case-00", "case-01"]
    assert len(data.dev) == 1
    assert len(data.left_out) == 17
    assert data.left_out[0] == "case-03: neither in train.txt nor in val.txt"

    (folder / "train.txt").write_text("\n")
    (folder / "dev.txt").write_text("case-05\n")
    assert names(load_data(folder)) == {"train": [], "dev": ["case-05"], "val": ["case-02"]}
    (folder / "train.txt").unlink()
    (folder / "images" / "scan.dcm").write_bytes(b"DICM")
    data = load_data(folder)
    assert (len(data.train), len(data.dev), len(data.val)) == (18, 1, 1), "one file gives the rest to the other split"
    assert data.left_out == ("images/scan.dcm: no format Pillow reads",)


def test_a_larger_limit_contains_the_smaller_and_leaves_the_other_splits_alone(folder):
    whole = load_data(folder)
    (folder / "images" / f"{whole.train.names[-1]}.png").write_bytes(
        b"no image: pixels outside the limits are not read"
    )
    for limit in (0, 7):
        data = load_data(folder, train_limit=limit, val_limit=2)
        parts = {"train": whole.train.names[:limit], "dev": whole.dev.names, "val": whole.val.names[:2]}
        assert names(data) == parts
    with pytest.raises(DataError, match=whole.train.names[-1]):
        load_data(folder)


def test_a_folder_without_the_layout_says_what_it_lacks(tmp_path):
    with pytest.raises(DataError, match="there is no such folder"):
        index_folder(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no images/ and no masks/"):
        load_data(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    (tmp_path / "images" / "scan.nii").touch()
    with pytest.raises(DataError, match="no file of a format that Pillow reads"):
        load_data(tmp_path)


def test_split_files_that_contradict_are_refused_even_when_bad_files_are_skipped(folder):
    (folder / "train.txt").write_text("case-00\ncase-01\n")
    (folder / "val.txt").write_text("case-01\ncase-00\ncase-02\n")
    with pytest.raises(DataError, match=r"two splits[^\n]*\n  case-01: in train and in val\n  case-00: in train and"):
        load_data(folder, skip_bad=True)
    (folder / "val.txt").write_text("case-02\ncase-02\n")
    with pytest.raises(DataError, match=r"val\.txt: stems that are listed twice:\n  case-02$"):
        load_data(folder, skip_bad=True)
    (folder / "val.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"val\.txt: not a readable text file"):
        load_data(folder)


def test_bad_cases_stop_with_the_whole_list_or_are_left_out_by_name(folder):
    (folder / "images" / "case-00.png").write_bytes(b"no image")
    add_case(folder, "case-01", LESION.T)
    (folder / "masks" / "case-02.png").unlink()
    (folder / "images" / "case-03.png").unlink()
    add_case(folder, "case-04", LESION & False)
    Image.fromarray(LESION).save(folder / "images" / "case-05.bmp")
    (folder / "dev.txt").write_text("case-19\nabsent\n")
    with pytest.raises(DataError) as caught:
        load_data(folder)
    head, *lines = str(caught.value).splitlines()
    assert head == "data: 7 bad cases; mend them, or leave them out with skip_bad (--skip-bad):"
    text = "\n".join(lines)
    for words in (
        "case-00.png: not a readable image",
        "case-01: the mask is 3 x 4, the image 4 x 3",
        "case-02: images/case-02.png has no partner in masks/",
        "case-03: masks/case-03.png has no partner in images/",
        "case-04: the mask is empty",
        "case-05: images/case-05.bmp, images/case-05.png: keep one",
        "absent: listed in a split file, but there is no image",
    ):
        assert words in text
    data = load_data(folder, skip_bad=True)
    assert len(data.left_out) == len(lines) == 7
    assert sorted(data.train.names + data.dev.names + data.val.names) == [f"case-{n:02d}" for n in range(6, 20)]
    for mask in (folder / "masks").iterdir():
        mask.unlink()
    with pytest.raises(DataError, match=r"  \.\.\. and 10 more$"):
        load_data(folder)
    with pytest.raises(DataError, match="no usable case is left"):
        load_data(folder, skip_bad=True)


def test_a_limit_still_yields_as_many_good_cases_when_bad_ones_are_skipped(folder):
    whole = load_data(folder)
    for stem in whole.train.names[:3]:
        (folder / "masks" / f"{stem}.png").write_bytes(b"no mask")
    data = load_data(folder, train_limit=4, skip_bad=True)
    assert data.train.names == whole.train.names[3:7]
    assert len(data.left_out) == 3
    assert load_data(folder, train_limit=0).train.names == []


@pytest.mark.real_data
def test_kvasir_has_its_official_split_and_masks_binarise_as_in_every_paper(real_data):
    data = load_data(real_data / "kvasir-seg", train_limit=20, dev_limit=5)
    assert (len(data.train), len(data.dev), len(data.val)) == (20, 5, 120)
    official = (real_data / "kvasir-seg" / "val.txt").read_text().split()
    assert sorted(data.val.names) == sorted(official)
    for case in data.train:
        path = real_data / "kvasir-seg" / "masks" / f"{case.name}.jpg"
        assert np.array_equal(case.mask, np.asarray(Image.open(path).convert("L")) > 127)
