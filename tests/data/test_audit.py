"""The audit finds what is planted, names pairs that cross the splits, and agrees with what is known of Kvasir-SEG."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy import ndimage

from medsam_helpers.data.audit import audit
from medsam_helpers.data.sources import load_data

HEIGHT, WIDTH = 60, 80
ONE = np.zeros((HEIGHT, WIDTH), bool)
ONE[20:40, 30:60] = True


def scene(number: int) -> np.ndarray:
    """A random picture, smoother at large scale as photographs are; those of different numbers are strangers."""
    rng = np.random.default_rng(number)
    noise = [rng.normal(size=(cells, cells, 3)) / cells for cells in (3, 6, 12)]
    smooth = sum(ndimage.zoom(each, (HEIGHT / len(each), WIDTH / len(each), 1), order=3) for each in noise)
    return (255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)


def add(folder: Path, stem: str, image: np.ndarray, mask: np.ndarray = ONE, suffix: str = ".png", **options) -> None:
    Image.fromarray(image).save(folder / "images" / f"{stem}{suffix}", **options)
    Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "masks" / f"{stem}.png")


@pytest.fixture
def folder(tmp_path) -> Path:
    for part in ("images", "masks"):
        (tmp_path / "data" / part).mkdir(parents=True)
    for number in range(6):
        add(tmp_path / "data", f"case-{number}", scene(number))
    (tmp_path / "data" / "train.txt").write_text("case-0\ncase-1\ncase-2\n")
    (tmp_path / "data" / "dev.txt").write_text("case-3\n")
    (tmp_path / "data" / "val.txt").write_text("case-4\ncase-5\n")
    return tmp_path / "data"


def list_in(folder: Path, split: str, *stems: str) -> None:
    path = folder / f"{split}.txt"
    path.write_text(path.read_text() + "\n".join(stems) + "\n")


def found(report) -> set[tuple[str, str, str, str]]:
    return set(report.table[["case", "split", "problem", "severity"]].itertuples(index=False, name=None))


def test_a_sound_folder_passes_with_a_summary(folder):
    report = audit(folder)
    assert report.table.empty
    assert str(report).splitlines() == [
        "data: 6 readable cases (3 train, 2 val, 1 dev)",
        "width 80 to 80 px, height 60 to 60 px",
        "lesion area, % of the image, min / quartiles / max: 12.5 / 12.5 / 12.5 / 12.5 / 12.5",
        "errors: none",
        "warnings: none",
        "notes: none",
    ]


def test_every_planted_fault_is_named_with_its_severity(folder):
    two = ONE.copy()
    two[50:55, 5:15] = True
    add(folder, "empty", scene(20), np.zeros_like(ONE))
    add(folder, "full", scene(21), np.ones_like(ONE))
    add(folder, "two", scene(22), two)
    add(folder, "sizes", scene(23), ONE.T)
    add(folder, "damaged", scene(24))
    (folder / "images" / "damaged.png").write_bytes(b"no image")
    add(folder, "maskless", scene(26))
    (folder / "masks" / "maskless.png").unlink()
    add(folder, "imageless", scene(27))
    (folder / "images" / "imageless.png").unlink()
    add(folder, "double", scene(28))
    add(folder, "double", scene(29), suffix=".bmp")
    add(folder, "noisy", scene(30))
    (folder / "masks" / "noisy.png").unlink()
    Image.fromarray(ndimage.shift(ONE, 3).astype(np.uint8) * 255).save(folder / "masks" / "noisy.jpg", quality=60)
    add(folder, "unlisted", scene(31))
    (folder / "masks" / "readme.md").touch()
    (folder / "masks" / ".hidden").touch()
    list_in(folder, "train", "empty", "full", "two", "sizes", "damaged", "maskless", "imageless")
    list_in(folder, "train", "double", "noisy", "absent")

    report = audit(folder)
    assert found(report) == {
        ("empty", "train", "empty mask", "error"),
        ("sizes", "train", "wrong size", "error"),
        ("damaged", "train", "unreadable", "error"),
        ("maskless", "train", "missing mask", "error"),
        ("imageless", "train", "missing image", "error"),
        ("double", "train", "duplicate stem", "error"),
        ("absent", "train", "missing file", "error"),
        ("full", "train", "all foreground", "warning"),
        ("readme", "", "ignored file", "warning"),
        ("two", "train", "several lesions", "note"),
        ("noisy", "train", "mask not binary", "note"),
        ("unlisted", "", "in no split", "note"),
    }
    assert report.exit_status == 1
    assert len(report.errors) == 7
    text = str(report)
    for words in ("mask 60 x 80, image 80 x 60", "not a readable image", "double.bmp"):
        assert words in text
    assert "notes: 1 in no split, 1 mask not binary, 1 several lesions" in text


def test_the_same_pixels_are_found_under_another_name_and_format(folder):
    add(folder, "again", scene(0), suffix=".bmp")
    add(folder, "in-dev", scene(1), suffix=".tif")
    add(folder, "in-val", scene(2))
    list_in(folder, "train", "again")
    list_in(folder, "dev", "in-dev")
    list_in(folder, "val", "in-val")
    report = audit(folder)
    assert found(report) == {
        ("again", "train", "duplicate", "warning"),
        ("case-1", "train", "duplicate across splits", "warning"),
        ("case-2", "train", "duplicate across splits", "error"),
    }
    assert list(report.errors.detail) == ["the same pixels as in-val (val)"]


def test_near_duplicates_across_the_split_are_errors_and_others_and_scenes_that_changed_more_warnings(folder):
    darker = np.asarray(ImageEnhance.Brightness(Image.fromarray(scene(0)).resize((113, 71))).enhance(0.8))
    add(folder, "near", darker, np.arange(113) > np.full((71, 1), 9))
    add(folder, "coarse", scene(1), suffix=".jpg", quality=40)
    add(folder, "later", (0.87 * scene(2).astype(float) + 0.13 * scene(99)).astype(np.uint8))
    list_in(folder, "train", "coarse")
    list_in(folder, "val", "near", "later")
    report = audit(folder)
    assert found(report) == {
        ("case-0", "train", "near-duplicate across splits", "error"),
        ("case-1", "train", "near-duplicate", "warning"),
        ("case-2", "train", "same scene across splits", "warning"),
    }
    assert "with near (val)" in report.errors.detail.item()


def test_a_loaded_data_set_is_audited_too_and_what_it_left_out_is_listed(folder):
    add(folder, "empty", scene(20), np.zeros_like(ONE))
    add(folder, "copy", scene(4), np.ones_like(ONE))
    list_in(folder, "train", "empty", "copy")
    data = load_data(folder, skip_bad=True)
    report = audit(data)
    assert found(report) == {
        ("", "", "left out", "warning"),
        ("copy", "train", "all foreground", "warning"),
        ("copy", "train", "duplicate across splits", "error"),
    }
    assert "empty: the mask is empty" in str(report)
    assert len(report.cases) == 7
    nothing = replace(data, train=data.train[:0], dev=data.dev[:0], val=data.val[:0], left_out=())
    assert "no readable case" in str(audit(nothing))


@pytest.mark.real_data
def test_kvasir_holds_four_near_duplicate_pairs_none_of_which_crosses_the_official_split(real_data):
    report = audit(real_data / "kvasir-seg")
    assert report.exit_status == 0
    assert report.cases.split.value_counts().to_dict() == {"train": 792, "dev": 88, "val": 120}
    near = report.table[report.table.problem.str.startswith("near-duplicate")]
    assert len(near) == 4
    assert not near.split.eq("val").any()
    assert report.table.problem.value_counts()["several lesions"] == 48  # 180 if single stray pixels counted
