"""Folders: split files and limits, what a broken one says, and real ones as they are published."""

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import draw_discs, save_images
from PIL import Image

from medsam_helpers.data.loading import load_data
from medsam_helpers.data.reading import read_image
from medsam_helpers.errors import DataError


@pytest.fixture
def folder(tmp_path) -> Path:
    """Cases disc-0 to disc-19, without split files."""
    save_images(draw_discs(20), tmp_path / "data")
    return tmp_path / "data"


def names(data) -> dict[str, list[str]]:
    return {split: cases.names for split, cases in data.splits.items()}


def test_without_split_files_a_fifth_is_val_and_a_tenth_of_the_rest_dev(folder):
    data = load_data(folder)
    assert str(data) == "data: 15 train, 1 dev, 4 val"
    assert sorted(data.train.names + data.dev.names + data.val.names) == sorted(draw_discs(20).names)
    assert names(load_data(folder, split_seed=1)) != names(data)
    assert pickle.loads(pickle.dumps(data)).digest == load_data(folder).digest


def test_split_files_are_kept_and_may_hold_blank_lines_or_nothing(folder):
    (folder / "train.txt").write_bytes(b"\xef\xbb\xbfdisc-0\r\n\r\n  disc-1 \n")
    (folder / "val.txt").write_text("\ndisc-2\n\n")
    data = load_data(folder)
    assert data.val.names == ["disc-2"]
    assert sorted(data.train.names + data.dev.names) == ["disc-0", "disc-1"]
    assert len(data.dev) == 1
    (told,) = [found.detail for found in data.findings if found.problem == "in no split"]
    assert told == "17 cases are in no list (disc-10, disc-11, disc-12, ...)"

    (folder / "train.txt").write_text("\n")
    (folder / "dev.txt").write_text("disc-5\n")
    assert names(load_data(folder)) == {"train": [], "dev": ["disc-5"], "val": ["disc-2"]}
    (folder / "train.txt").unlink()
    (folder / "images" / "scan.dcm").write_bytes(b"DICM")
    data = load_data(folder)
    assert str(data) == "data: 18 train, 1 dev, 1 val", "one file gives the rest to the other split"
    assert [found.detail for found in data.findings] == ["images/scan.dcm: DICOM is not read: save PNG or TIFF"]


def test_a_larger_limit_contains_the_smaller_leaves_the_other_splits_alone_and_counts_good_cases(folder):
    whole = load_data(folder)
    train = whole.train.names
    (folder / "masks" / f"{train[7]}.png").write_bytes(b"no image: pixels outside the limits are not read")
    for limit in (0, 7):
        parts = {"train": train[:limit], "dev": whole.dev.names, "val": whole.val.names[:2]}
        assert names(load_data(folder, train_limit=limit, val_limit=2)) == parts
    with pytest.raises(DataError, match=train[7]):
        load_data(folder, train_limit=8)
    data = load_data(folder, train_limit=8, skip_bad=True)
    assert data.train.names == [*train[:7], train[8]]
    assert len(data.left_out) == 1


def test_a_folder_without_the_layout_says_what_it_lacks(tmp_path):
    with pytest.raises(DataError, match="no images/ and no masks/"):
        load_data(tmp_path)
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    (tmp_path / "images" / "scan.nii").touch()
    told = r"images: holds no image that can be read:\n  images/scan.nii: NIfTI is not read"
    with pytest.raises(DataError, match=told):
        load_data(tmp_path)
    (tmp_path / "annotations.json").touch()
    (tmp_path / "masks").rmdir()
    (tmp_path / "scans" / "patient").mkdir(parents=True)
    (tmp_path / "scans" / "patient" / "ct.nii").touch()
    with pytest.raises(DataError, match=r"patient/ct.nii: NIfTI is not read: save slices as PNG or TIFF; a"):
        load_data(tmp_path / "scans")
    with pytest.raises(DataError, match=r"annotations\.json may be COCO, which is not read"):
        load_data(tmp_path)
    (tmp_path / "images").rename(tmp_path / "benign")
    (tmp_path / "benign" / "1_mask.png").touch()
    with pytest.raises(DataError, match=r"masks lie beside their images \(benign/1_mask.png\)"):
        load_data(tmp_path)


def test_what_is_no_file_or_has_no_name_to_show_is_told_and_nothing_waits_for_it(tmp_path):
    save_images(draw_discs(4), tmp_path)
    os.mkfifo(tmp_path / "images" / "pipe.png")
    found = {finding.detail for finding in load_data(tmp_path).findings}
    assert "images/pipe.png: a pipe or a device, not a file" in found
    with pytest.raises(DataError, match=r"pipe.png: a folder, a pipe or a device, not a file"):
        read_image(tmp_path / "images" / "pipe.png")
    names = ["\x1b[31mred.png", "turned\u202egnp.png", os.fsdecode(b"\xff.png")]
    for name in names:  # an escape sequence, a direction mark, no UTF-8
        shutil.copy(tmp_path / "images" / "disc-0.png", tmp_path / "images" / name)
    told = [found.detail for found in load_data(tmp_path).findings if "rename it" in found.detail]
    said = [f"{name!a} in images/: characters that cannot be shown, or no UTF-8: rename it" for name in names]
    assert sorted(told) == sorted(said)
    (tmp_path / "val.txt").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"val.txt: a dangling link, a folder or a pipe, not a list"):
        load_data(tmp_path)


@pytest.mark.parametrize(
    ("val", "words"),
    [
        (b"disc-1\ndisc-0\ndisc-2\n", r"two splits[^\n]*\n  disc-1: in train and in val\n  disc-0: in train and"),
        (b"disc-2\ndisc-2\n", r"val\.txt: names that are listed twice:\n  disc-2$"),
        (b"\xff\xfe\x00", r"val\.txt: not a readable text file"),
    ],
)
def test_split_files_that_contradict_are_refused_even_when_bad_files_are_skipped(folder, val, words):
    (folder / "train.txt").write_text("disc-0\ndisc-1\n")
    (folder / "val.txt").write_bytes(val)
    with pytest.raises(DataError, match=words):
        load_data(folder, skip_bad=True)


def test_bad_cases_stop_with_the_whole_list_or_are_left_out_by_name(folder):
    (folder / "images" / "disc-0.png").write_bytes(b"no image")
    (folder / "masks" / "disc-2.png").unlink()
    (folder / "dev.txt").write_text("disc-19\nabsent\n")
    with pytest.raises(DataError, match=r"^data: 3 bad cases; mend them, or .*--skip-bad") as caught:
        load_data(folder)
    told = ("disc-0.png: not a readable image", "disc-2.png has no partner in masks/", "absent: listed in a split file")
    data = load_data(folder, skip_bad=True)
    for words in told:
        assert words in str(caught.value)
        assert words in "\n".join(data.left_out)
    assert str(data) == "data: 15 train, 1 dev, 2 val"
    for mask in sorted((folder / "masks").iterdir())[1:]:
        mask.unlink()
    with pytest.raises(DataError, match=r"  \.\.\. and 11 more$"):
        load_data(folder)
    with pytest.raises(DataError, match="no usable case is left"):
        load_data(folder, skip_bad=True)


def test_lists_may_name_files_be_saved_by_notepad_and_hold_a_test_set_that_nothing_is_trained_on(folder):
    (folder / "val.txt").write_text("disc-1.png\r\ndisc-2.png\r\n", encoding="utf-16")
    (folder / "test.txt").write_text("disc-3\ndisc-4\n")
    (folder / "validation.txt").write_text("disc-5\n")
    data = load_data(folder)
    assert str(data) == "data: 15 train, 1 dev, 2 val, 2 test"
    assert sorted(data.test.names) == ["disc-3", "disc-4"]
    (found,) = data.findings
    assert found.detail == "validation.txt: not read; the lists are train.txt, dev.txt, val.txt, test.txt"
    (folder / "val.txt").write_text("dusc-1\n")
    with pytest.raises(DataError, match=r"dusc-1: listed in a split file, .*; disc-1\?"):
        load_data(folder)


def move(folder, pattern):
    """A folder with the files of `images/` and `masks/` where the pattern says; the last four cases are val."""
    moved = folder.parent / "moved"
    for part in ("images", "masks"):
        for number in range(20):
            split = "val" if number > 15 else "training"
            file = moved / pattern.format(part=part, split=split) / f"disc-{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            (folder / part / file.name).rename(file)
            (file.parent.parent / ".DS_Store").touch()  # as macOS leaves it
    return moved


@pytest.mark.parametrize("pattern", ["{part}/{split}", "{split}/{part}"])
def test_splits_may_be_folders(folder, pattern):
    data = load_data(move(folder, pattern))
    assert sorted(data.val.names) == ["disc-16", "disc-17", "disc-18", "disc-19"]
    assert str(data) == "moved: 15 train, 1 dev, 4 val"


def test_published_names_of_the_two_folders_are_known(folder):
    (folder / "images").rename(folder / "Original")
    (folder / "masks").rename(folder / "Ground Truth")
    assert str(load_data(folder)) == "data: 15 train, 1 dev, 4 val"


def test_label_maps_stop_even_when_bad_files_are_skipped_and_so_do_masks_that_differ_in_their_value(folder):
    mask = folder / "masks" / "disc-0.png"
    lesion = np.asarray(Image.open(mask))
    Image.fromarray(lesion * np.uint8(2)).save(mask)
    with pytest.raises(DataError, match=r"the first is disc-0: .* 2 in 1 \(disc-0\), 255 in 19 \(.*--classes 2,255"):
        load_data(folder, skip_bad=True)
    assert load_data(folder, classes="2,255").digest
    lesion = lesion.astype(np.uint8)
    lesion[:9] = 3
    Image.fromarray(lesion).save(mask)
    with pytest.raises(DataError, match=r"disc-0\.png: a label map"):
        load_data(folder, skip_bad=True)


def test_masks_that_are_inverted_throughout_are_refused(folder):
    for mask in (folder / "masks").iterdir():
        Image.fromarray(~np.asarray(Image.open(mask))).save(mask)
    with pytest.raises(DataError, match="20 of 20 masks seem inverted"):
        load_data(folder)
    assert load_data(folder, classes="0").train[0].mask.mean() < 0.5
    assert load_data(folder, classes="255").train[0].mask.mean() > 0.5


def test_training_images_that_look_like_scoring_images_are_named_or_dropped(folder):
    (folder / "val.txt").write_text("disc-1\n")
    for part in ("images", "masks"):
        shutil.copy(folder / part / "disc-1.png", folder / part / "copy.png")
    found = [found for found in load_data(folder).findings if found.case == "copy"]
    assert [found.problem for found in found] == ["near-duplicate of a scoring image"]
    data = load_data(folder, drop_duplicates=True)
    assert "copy" not in data.train.names + data.dev.names
    assert data.left_out == ("copy: looks like disc-1",)


@pytest.mark.real_data
def test_kvasir_has_its_official_split_and_masks_binarise_as_in_every_paper(real_data):
    folder = real_data / "kvasir-seg"
    data = load_data(folder, train_limit=20, dev_limit=5)
    assert str(data) == "kvasir-seg: 20 train, 5 dev, 120 val"
    assert sorted(data.val.names) == sorted((folder / "val.txt").read_text().split())
    for case in data.train:
        stored = Image.open(folder / "masks" / f"{case.name}.jpg").convert("L")
        assert np.array_equal(case.mask, np.asarray(stored) > 127)
