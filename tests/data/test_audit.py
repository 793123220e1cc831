"""The audit finds what is planted, names pairs that cross the splits, and agrees with what is known of Kvasir-SEG."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import mask_of, patchwork
from PIL import Image
from scipy import ndimage

from medsam_helpers.data.audit import audit
from medsam_helpers.data.loading import load_data

ONE = mask_of((64, 80), (20, 40, 30, 62))
TWO = ONE | mask_of((64, 80), (50, 55, 5, 15))


def picture(number: int) -> np.ndarray:
    return patchwork(number, *ONE.shape)


@pytest.fixture
def folder(tmp_path) -> Path:
    for part in ("images", "masks"):
        (tmp_path / "data" / part).mkdir(parents=True)
    for number, split in enumerate(("train", "train", "train", "dev", "val", "val")):
        add(tmp_path / "data", f"case-{number}", picture(number), split=split)
    return tmp_path / "data"


def add(folder, stem, image, mask=ONE, suffix=".png", split="train", **options) -> None:
    Image.fromarray(image).save(folder / "images" / f"{stem}{suffix}", **options)
    Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "masks" / f"{stem}.png")
    with (folder / f"{split}.txt").open("a") as listed:
        listed.write(f"{stem}\n")


def found(report) -> set[tuple[str, str, str, str]]:
    return set(report.table[["case", "split", "problem", "severity"]].itertuples(index=False, name=None))


def in_train(severity: str, problems: dict[str, str]) -> set[tuple[str, str, str, str]]:
    """As `found`, of cases that are all in train."""
    return {(case, "train", problem, severity) for case, problem in problems.items()}


def test_a_sound_folder_passes_with_a_summary(folder):
    report = audit(folder)
    assert report.table.empty
    assert report.exit_status == 0
    text = str(report)
    assert "data: 6 readable cases (3 train, 2 val, 1 dev); fewer than 5 in val: no interval can be given\n" in text
    assert "width 80 to 80 px, height 64 to 64 px\n" in text
    assert "min / quartiles / max: 12.5 / 12.5 / 12.5 / 12.5 / 12.5\nerrors: none\n" in text


def test_every_planted_fault_is_named_with_its_severity(folder):
    for number, stem in enumerate(("damaged", "maskless", "imageless", "double", "noisy", "unlisted")):
        add(folder, stem, picture(20 + number), split="new" if stem == "unlisted" else "train")
    add(folder, "empty", picture(30), ONE & False)
    add(folder, "full", picture(31), ONE | True)
    add(folder, "two", picture(32), TWO)
    add(folder, "sizes", picture(33), ONE.T)
    add(folder, "double", picture(34), suffix=".bmp", split="new")
    (folder / "images" / "damaged.png").write_bytes(b"no image")
    (folder / "images" / "imageless.png").unlink()
    for stem in ("maskless", "noisy"):
        (folder / "masks" / f"{stem}.png").unlink()
    Image.fromarray(ndimage.shift(ONE, 3).astype(np.uint8) * 255).save(folder / "masks" / "noisy.jpg", quality=60)
    for ignored in ("readme.md", ".hidden"):
        (folder / "masks" / ignored).touch()
    (folder / "dev.txt").write_text("case-3\nabsent\n")

    report = audit(folder)
    errors = {"empty": "empty mask", "sizes": "wrong size", "damaged": "unreadable", "maskless": "missing mask"}
    errors |= {"imageless": "missing image", "double": "duplicate stem"}
    expected = in_train("error", errors) | in_train("warning", {"full": "all foreground"})
    expected |= in_train("note", {"two": "several lesions", "noisy": "mask not binary"})
    expected |= {("absent", "dev", "missing file", "error"), ("", "", "in no split", "note")}
    assert found(report) == expected | {("", "", "ignored file", "warning"), ("", "", "unknown list", "warning")}
    assert (report.exit_status, len(report.errors)) == (1, 7)
    for words in ("mask is 64 x 80, the image 80 x 64", "not a readable image", "double.bmp", "not binary (noisy)"):
        assert words in str(report)


def test_the_same_pixels_are_found_under_another_name_and_format(folder):
    add(folder, "again", picture(0), suffix=".bmp")
    add(folder, "in-dev", picture(1), suffix=".tif", split="dev")
    add(folder, "in-val", picture(2), split="val")
    report = audit(folder)
    warned = {"again": "duplicate", "case-1": "duplicate across splits"}
    assert found(report) == in_train("warning", warned) | in_train("error", {"case-2": "duplicate across splits"})
    assert list(report.errors.detail) == ["the same pixels as in-val (val)"]


def test_near_duplicates_across_the_split_are_errors_and_others_and_scenes_that_changed_more_warnings(folder):
    darker = np.asarray(Image.fromarray(picture(0)).resize((113, 71))) * 0.8
    add(folder, "near", darker.astype(np.uint8), np.arange(113) > np.full((71, 1), 9), split="val")
    add(folder, "coarse", picture(1), suffix=".jpg", quality=40)
    add(folder, "later", (0.87 * picture(2) + 0.13 * picture(99)).astype(np.uint8), split="val")
    report = audit(folder)
    warned = {"case-1": "near-duplicate", "case-2": "same scene across splits"}
    assert found(report) == in_train("warning", warned) | in_train("error", {"case-0": "near-duplicate across splits"})
    assert "with near (val)" in report.errors.detail.item()


def test_a_loaded_data_set_is_audited_too_and_what_it_left_out_is_listed(folder):
    add(folder, "empty", picture(20), ONE & False)
    add(folder, "copy", picture(4), ONE | True)
    data = load_data(folder, skip_bad=True)
    report = audit(data)
    copy = in_train("warning", {"copy": "all foreground"}) | in_train("error", {"copy": "duplicate across splits"})
    assert found(report) == copy | {("", "", "left out", "warning")}
    assert "empty: the mask is empty" in str(report)
    assert len(report.cases) == 7
    nothing = replace(data, train=data.train[:0], dev=data.dev[:0], val=data.val[:0], left_out=())
    assert "no readable case" in str(audit(nothing))


def test_doubts_are_warnings_with_their_evidence(folder):
    outline = ONE & ~ndimage.binary_erosion(ONE)
    tiny = mask_of((1500, 2000), (700, 706, 900, 906))
    add(folder, "outline", picture(20), outline)
    add(folder, "inverted", picture(21), ~ONE)
    add(folder, "dark", np.minimum(picture(22), 12))
    add(folder, "tiny", np.asarray(Image.fromarray(picture(23)).resize((2000, 1500))), tiny)
    turned = Image.Exif()
    turned[Image.ExifTags.Base.Orientation] = 3
    add(folder, "turned", picture(24), exif=turned)
    report = audit(folder)
    doubts = {"outline": "outline", "inverted": "inverted mask", "dark": "nearly constant image"}
    doubts |= {"tiny": "vanishes in training", "turned": "orientation"}
    assert found(report) == in_train("warning", doubts)
    for words in ("100 pixels enclose 540", "--classes 0", "--window 1%:99%", "36 pixels of 2000 x 1500", "--exif"):
        assert words in str(report)


def test_label_maps_and_photographs_are_errors_of_their_own(folder):
    add(folder, "classes", picture(20))
    Image.fromarray(np.where(ONE, 1 + (np.arange(80) > 45), 0).astype(np.uint8)).save(folder / "masks" / "classes.png")
    add(folder, "photograph", picture(21))
    shades = np.random.default_rng(0).integers(0, 256, ONE.shape, np.uint8)
    Image.fromarray(shades).save(folder / "masks" / "photograph.png")
    assert found(audit(folder)) == in_train("error", {"classes": "label map", "photograph": "photograph"})
    assert found(audit(folder, classes="all")) == in_train("error", {"photograph": "photograph"})
    assert "mistyped" not in str(audit(folder, classes="1,2,255"))
    assert "7, of --classes: is it mistyped?" in str(audit(folder, classes="1,2,7,255"))


@pytest.mark.real_data
def test_kvasir_holds_four_near_duplicate_pairs_none_of_which_crosses_the_official_split(real_data):
    report = audit(real_data / "kvasir-seg")
    assert report.exit_status == 0
    assert report.cases.split.value_counts().to_dict() == {"train": 792, "dev": 88, "val": 120}
    near = report.table[report.table.problem.str.startswith("near-duplicate")]
    assert len(near) == 4
    assert not near.split.eq("val").any()
    assert report.table.problem.value_counts()["several lesions"] == 48  # 180 if single stray pixels counted
