"""Which mask belongs to which image: where the names leave no doubt, and what is said where they do."""

import pytest
from PIL import Image

from medsam_helpers.data.pairing import pair


def files(folder, *names):
    folder.mkdir()
    for name in names:
        if "." in name:
            Image.new("L", (2, 2)).save(folder / name)
    return folder


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        (["a.png", "a_1.png"], ["a.jpg", "a_1.bmp"]),
        (["IMG_1.png"], ["img_1.png"]),
        (["benin\u0303.png"], ["beni\u00f1.png"]),
        (["a.png", "b.png"], ["a_mask.png", "b_segmentation.png"]),
        (["1.tif", "12.tif"], ["p1.tif", "p12.tif"]),
        (["scan.2024.01.png"], ["scan.2024.01_mask.png"]),
    ],
)
def test_masks_find_their_image(tmp_path, images, masks):
    found = pair(files(tmp_path / "images", *images), files(tmp_path / "masks", *masks))
    assert [path.name for path in found.images.values()] == sorted(images)
    assert [[path.name for path in found.masks[name]] for name in found.images] == [[name] for name in sorted(masks)]
    assert not [problem for problem in found.findings if problem.severity == "error"]


def test_several_masks_of_one_image_are_one_and_it_is_said(tmp_path):
    masks = files(tmp_path / "masks", "a_mask.png", "a_mask_1.png", "b_1.png", "b_2.png")
    found = pair(files(tmp_path / "images", "a.png", "b.png"), masks)
    assert {name: len(paths) for name, paths in found.masks.items()} == {"a": 2, "b": 2}
    told = "masks/a_mask.png, masks/a_mask_1.png taken as the mask of images/a.png, and 1 more like it"
    assert [finding.detail for finding in found.findings] == [told]


def test_what_is_in_doubt_is_an_error_by_name(tmp_path):
    images = files(tmp_path / "images", "a.png", "b.png", "c.png", "c.jpg", "d.png")
    found = pair(images, files(tmp_path / "masks", "a.png", "a_1.png", "b.png", "b.bmp", "c.png"))
    told = {"a_1": "missing image", "b": "duplicate stem", "c": "duplicate stem", "d": "missing mask"}
    assert {(finding.case, finding.problem) for finding in found.findings} == set(told.items())


def test_what_is_no_case_is_passed_over_and_the_rest_has_words_of_its_own(tmp_path):
    images, masks = files(tmp_path / "images", "a.png"), files(tmp_path / "masks", "a.png")
    for name in ("._a.png", ".DS_Store", "Thumbs.db"):
        (images / name).write_bytes(b"no image")
    assert not pair(images, masks).findings
    (images / "more").mkdir()
    (images / "more" / "b.png").touch()
    (images / "b.png").symlink_to(tmp_path / "gone.png")
    (images / "IM0001").write_bytes(b"\0" * 128 + b"DICM")
    (masks / "c.npy").touch()
    (masks / "notes.docx").touch()
    told = "\n".join(finding.detail for finding in pair(images, masks).findings)
    for words in (
        "images/more: a folder of 1 files, which are not read",
        "images/b.png: a link to ",
        "images/IM0001: DICOM is not read",
        "masks/c.npy: NumPy arrays are not read",
        "masks/notes.docx: no format that Pillow reads",
    ):
        assert words in told
