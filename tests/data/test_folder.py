"""Every kind of image and mask file, split files and limits, and what a broken folder says."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medsam_helpers.data.folder import folder_dataset
from medsam_helpers.data.reading import read_image, read_mask, read_mask_values
from medsam_helpers.data.sources import load_data
from medsam_helpers.data.splits import make_splits, seeded_order
from medsam_helpers.errors import ConfigError, DataError

GRAY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
RGB = np.stack([GRAY, GRAY // 2, 255 - GRAY], axis=2)
LESION = np.array([[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 0, 0]], bool)
RIGHT_TOP = 6  # EXIF orientation: turn by 90 degrees clockwise to see it upright


def save(path: Path, picture: np.ndarray | Image.Image, mode: str | None = None, **options) -> Path:
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    path.parent.mkdir(parents=True, exist_ok=True)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def add_case(folder: Path, stem: str, seed: int = 0, mask: np.ndarray = LESION) -> None:
    pixels = np.random.default_rng([seed, *stem.encode()]).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    save(folder / "images" / f"{stem}.png", pixels)
    save(folder / "masks" / f"{stem}.png", mask)


@pytest.fixture
def folder(tmp_path) -> Path:
    for number in range(20):
        add_case(tmp_path / "data", f"case-{number:02d}")
    return tmp_path / "data"


# --- images


def test_colour_gray_palette_and_bilevel_images_become_rgb(tmp_path):
    gray3 = np.repeat(GRAY[..., None], 3, axis=2)
    assert np.array_equal(read_image(save(tmp_path / "rgb.png", RGB)), RGB)
    assert np.array_equal(read_image(save(tmp_path / "gray.png", GRAY)), gray3)
    assert np.array_equal(read_image(save(tmp_path / "gray.tif", GRAY)), gray3)
    assert np.array_equal(read_image(save(tmp_path / "palette.png", GRAY, "P")), gray3)
    assert np.array_equal(read_image(save(tmp_path / "bits.png", LESION))[..., 1], LESION * 255)
    read = read_image(save(tmp_path / "rgb.bmp", RGB))
    assert (read.dtype, read.shape, read.flags.writeable) == (np.uint8, (3, 4, 3), True)


def test_a_jpeg_is_read_as_pillow_reads_it(tmp_path):
    path = save(tmp_path / "a.jpg", np.kron(RGB, np.ones((16, 16, 1), np.uint8)), quality=90)
    assert np.array_equal(read_image(path), np.asarray(Image.open(path).convert("RGB")))
    assert np.array_equal(read_image(path.read_bytes()), read_image(path))


def test_transparent_pixels_lie_on_black_and_half_transparent_ones_are_halved(tmp_path):
    rgba = np.full((1, 3, 4), 200, np.uint8)
    rgba[0, :, 3] = [255, 0, 128]
    assert read_image(save(tmp_path / "a.png", rgba))[0, :, 0].tolist() == [200, 0, 100]
    assert read_image(save(tmp_path / "la.png", rgba[..., 2:]))[0, :, 0].tolist() == [200, 0, 100]
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "L").convert("P")
    palette.putpalette([90, 90, 90, 60, 60, 60])
    assert read_image(save(tmp_path / "p.png", palette, transparency=0))[0, :, 0].tolist() == [0, 60]


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_more_than_8_bits_are_stretched_from_minimum_to_maximum(tmp_path, dtype):
    twelve_bits = np.array([[1000, 2000], [3000, 4095]], dtype)
    read = read_image(save(tmp_path / "deep.tif", twelve_bits))
    expected = [0, round(255 * 1000 / 3095), round(255 * 2000 / 3095), 255]  # 0, 82, 165, 255
    assert read[..., 0].ravel().tolist() == expected == [0, 82, 165, 255]
    assert (read[..., 0] == read[..., 2]).all()


def test_16_bit_png_is_stretched_and_a_constant_image_is_black(tmp_path):
    path = save(tmp_path / "deep.png", np.array([[0, 32768, 65535]], np.uint16))
    assert Image.open(path).mode == "I;16"
    assert read_image(path)[0, :, 0].tolist() == [0, 128, 255]
    assert not read_image(save(tmp_path / "flat.png", np.full((2, 2), 700, np.uint16))).any()


def test_exif_rotation_is_applied_to_colour_and_deep_images(tmp_path):
    exif = Image.Exif()
    exif[Image.ExifTags.Base.Orientation] = RIGHT_TOP
    turned = np.rot90(GRAY, k=-1)
    assert np.array_equal(read_image(save(tmp_path / "a.png", GRAY, exif=exif))[..., 0], turned)
    deep = GRAY.astype(np.uint16) * 257
    stretched = np.rint(turned.astype(float) * 255 / 220).astype(np.uint8)
    assert np.array_equal(read_image(save(tmp_path / "deep.png", deep, exif=exif))[..., 0], stretched)


def test_damaged_absent_stacked_and_not_finite_images_are_refused_by_name(tmp_path):
    whole = save(tmp_path / "whole.png", np.kron(RGB, np.ones((30, 30, 1), np.uint8)))
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:200])
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty.png").touch()
    stack = Image.fromarray(GRAY)
    stack.save(tmp_path / "stack.tif", save_all=True, append_images=[stack, stack])
    save(tmp_path / "nan.tif", np.array([[0, np.nan]], np.float32))
    for name, words in {
        "cut.png": "not a readable image",
        "text.png": "not a readable image",
        "empty.png": "not a readable image",
        "absent.png": "no such file",
        "stack.tif": "3 frames",
        "nan.tif": "not finite",
    }.items():
        for read in (read_image, read_mask):
            with pytest.raises(DataError, match=f"{name}: .*{words}"):
                read(tmp_path / name)
    with pytest.raises(DataError, match="image bytes"):
        read_image(b"hello")


# --- masks

MASK_FILES = {
    "bits.png": lambda: Image.fromarray(LESION),
    "labels.png": lambda: LESION.astype(np.uint8),
    "full.png": lambda: LESION.astype(np.uint8) * 255,
    "gray-levels.png": lambda: np.where(LESION, 200, 90).astype(np.uint8),
    "int32-labels.tif": lambda: LESION.astype(np.int32),
    "int32-full.tif": lambda: LESION.astype(np.int32) * 255,
    "uint16-labels.png": lambda: LESION.astype(np.uint16),
    "uint16-full.png": lambda: LESION.astype(np.uint16) * 65535,
    "float.tif": lambda: LESION.astype(np.float32) * 0.9,
    "rgb.png": lambda: np.repeat(LESION[..., None] * np.uint8(255), 3, axis=2),
    "red.png": lambda: LESION[..., None] * np.array([255, 0, 0], np.uint8),
    "blue.bmp": lambda: LESION[..., None] * np.array([0, 0, 255], np.uint8),
    "rgba.png": lambda: np.dstack([LESION * np.uint8(255)] * 3 + [np.full(LESION.shape, 255, np.uint8)]),
    "white-on-nothing.png": lambda: np.dstack([np.full(LESION.shape, 255, np.uint8)] * 3 + [LESION * np.uint8(255)]),
    "palette-gray.png": lambda: Image.fromarray(LESION.astype(np.uint8)).convert("P"),
    "palette-colour.png": lambda: painted([0, 0, 0, 128, 0, 0], LESION),
    "palette-white-first.gif": lambda: painted([255, 255, 255, 0, 0, 0], ~LESION),
}


def painted(palette: list[int], indices: np.ndarray) -> Image.Image:
    image = Image.fromarray(indices.astype(np.uint8), "L")
    image.putpalette(palette)
    return image


@pytest.mark.parametrize("name", MASK_FILES)
def test_one_rule_reads_every_kind_of_mask(tmp_path, name):
    read = read_mask(save(tmp_path / name, MASK_FILES[name]()))
    assert read.dtype == bool
    assert np.array_equal(read, LESION)


def test_jpeg_noise_falls_on_its_own_side(tmp_path):
    lesion = np.kron(LESION, np.ones((21, 21), bool))  # edges inside the 8 x 8 blocks, so that JPEG rings
    path = save(tmp_path / "noisy.jpg", lesion.astype(np.uint8) * 255, "RGB", quality=60)
    values, full_scale = read_mask_values(path)
    assert full_scale == 255
    assert ((values > 0) & (values < 255)).any()
    assert np.array_equal(read_mask(path), lesion)
    assert np.array_equal(read_mask(path), np.asarray(Image.open(path).convert("L")) > 127)


def test_blank_and_full_masks_stay_so(tmp_path):
    assert not read_mask(save(tmp_path / "blank.png", np.zeros((3, 4), np.uint8))).any()
    assert read_mask(save(tmp_path / "ones.png", np.ones((3, 4), np.uint8))).all()
    assert read_mask(save(tmp_path / "full.png", np.full((3, 4), 255, np.uint8))).all()


@pytest.mark.parametrize(
    "values",
    [
        np.array([[0, 1, 2, 3]], np.uint8),
        np.array([[0, 100]], np.uint8),
        np.array([[0, 300]], np.int32),
        np.array([[-1, 1]], np.int32),
        np.array([[0, 100_000]], np.int32),
        np.array([[0, 0.3]], np.float32),
    ],
)
def test_masks_that_leave_it_open_what_is_the_lesion_are_refused(tmp_path, values):
    with pytest.raises(DataError, match=r"several\.tif: mask values run from .*one mask a lesion class"):
        read_mask(save(tmp_path / "several.tif", values))


def test_a_mask_is_turned_only_by_its_own_tag(tmp_path):
    exif = Image.Exif()
    exif[Image.ExifTags.Base.Orientation] = RIGHT_TOP
    save(tmp_path / "images" / "own.png", RGB, exif=exif)
    save(tmp_path / "masks" / "own.png", LESION.astype(np.uint8), exif=exif)
    save(tmp_path / "images" / "upright.png", RGB, exif=exif)
    save(tmp_path / "masks" / "upright.png", np.rot90(LESION, k=-1).astype(np.uint8))
    data = folder_dataset(tmp_path)
    for case in [*data.train, *data.dev, *data.val]:
        assert case.size_hw == (4, 3)
        assert np.array_equal(case.mask, np.rot90(LESION, k=-1))
    save(tmp_path / "masks" / "upright.png", LESION.astype(np.uint8))
    with pytest.raises(DataError, match=r"upright: the mask is 4 x 3, the image 3 x 4 \(EXIF rotation applied"):
        folder_dataset(tmp_path)


# --- splits and limits


def names(data) -> dict[str, list[str]]:
    return {"train": data.train.names, "dev": data.dev.names, "val": data.val.names}


def test_without_split_files_a_fifth_is_val_and_a_tenth_of_the_rest_dev(folder):
    data = folder_dataset(folder)
    assert str(data) == "data: 15 train, 1 dev, 4 val"
    everything = data.train.names + data.dev.names + data.val.names
    assert sorted(everything) == [f"case-{number:02d}" for number in range(20)]
    assert names(folder_dataset(folder)) == names(data)
    assert names(folder_dataset(folder, split_seed=1)) != names(data)


def test_split_files_are_kept_and_may_hold_blank_lines_or_nothing(folder):
    (folder / "train.txt").write_bytes(b"\xef\xbb\xbfcase-00\r\n\r\n  case-01 \n")
    (folder / "val.txt").write_text("\ncase-02\n\n")
    data = folder_dataset(folder)
    assert data.val.names == ["case-02"]
    assert sorted(data.train.names + data.dev.names) == ["case-00", "case-01"]
    assert len(data.dev) == 1
    assert len(data.left_out) == 17
    assert data.left_out[0] == "case-03: neither in train.txt nor in val.txt"

    (folder / "train.txt").write_text("\n")
    (folder / "dev.txt").write_text("case-05\n")
    assert names(folder_dataset(folder)) == {"train": [], "dev": ["case-05"], "val": ["case-02"]}


def test_a_file_that_pillow_cannot_read_is_named_among_what_is_left_out(folder):
    (folder / "images" / "scan.dcm").write_bytes(b"DICM")
    assert folder_dataset(folder).left_out == ("images/scan.dcm: no format Pillow reads",)


def test_one_split_file_gives_the_rest_to_the_other_split(folder):
    (folder / "val.txt").write_text("case-02\ncase-04\n")
    data = folder_dataset(folder)
    assert sorted(data.val.names) == ["case-02", "case-04"]
    assert (len(data.train), len(data.dev), data.left_out) == (17, 1, ())
    (folder / "val.txt").rename(folder / "train.txt")
    data = folder_dataset(folder)
    assert (len(data.train), len(data.dev), len(data.val)) == (1, 1, 18)


def test_a_larger_limit_contains_the_smaller_and_leaves_the_other_splits_alone(folder):
    whole = folder_dataset(folder)
    for limit in (0, 1, 7, 15, 99):
        data = folder_dataset(folder, train_limit=limit, val_limit=2)
        assert data.train.names == whole.train.names[:limit]
        assert data.dev.names == whole.dev.names
        assert data.val.names == whole.val.names[:2]
    assert len(folder_dataset(folder, dev_limit=0).dev) == 0


@settings(max_examples=50)
@given(st.sets(st.text(min_size=1, max_size=4), max_size=40), st.integers(0, 3), st.data())
def test_splits_part_the_cases_and_keep_the_order_of_the_others(cases, seed, data):
    splits = make_splits(sorted(cases), seed)
    assert sorted(splits["train"] + splits["dev"] + splits["val"]) == sorted(cases)
    assert len(splits["val"]) == (max(1, len(cases) // 5) if len(cases) > 1 else 0)
    trained = len(splits["train"]) + len(splits["dev"])
    assert len(splits["dev"]) == (max(1, trained // 10) if trained > 1 else 0)
    shuffled = data.draw(st.permutations(sorted(cases)))
    assert make_splits(shuffled, seed) == splits
    fewer = shuffled[: len(shuffled) // 2]
    assert seeded_order(fewer, seed) == [name for name in seeded_order(shuffled, seed) if name in set(fewer)]


@pytest.mark.parametrize("limit", [-1, 1.5, True, "3"])
def test_a_limit_must_be_a_whole_number(folder, limit):
    with pytest.raises(ConfigError, match=r"train_limit is .*whole number"):
        folder_dataset(folder, train_limit=limit)
    with pytest.raises(ConfigError, match="val_limit"):
        load_data(folder, val_limit=limit)


# --- broken folders


def test_a_folder_without_the_layout_says_what_it_lacks(tmp_path):
    with pytest.raises(DataError, match="there is no such folder"):
        folder_dataset(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no images/ and no masks/"):
        folder_dataset(tmp_path)
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="it has no masks/"):
        folder_dataset(tmp_path)
    (tmp_path / "masks").mkdir()
    (tmp_path / "images" / "scan.nii").touch()
    with pytest.raises(DataError, match="no file of a format that Pillow reads"):
        folder_dataset(tmp_path)


def test_split_files_that_contradict_are_refused_even_when_bad_files_are_skipped(folder):
    (folder / "train.txt").write_text("case-00\ncase-01\n")
    (folder / "val.txt").write_text("case-01\ncase-00\ncase-02\n")
    with pytest.raises(DataError, match=r"two splits[^\n]*\n  case-01: in train and in val\n  case-00: in train and"):
        folder_dataset(folder, skip_bad=True)
    (folder / "val.txt").write_text("case-02\ncase-02\n")
    with pytest.raises(DataError, match=r"val\.txt: stems that are listed twice:\n  case-02$"):
        folder_dataset(folder, skip_bad=True)
    (folder / "val.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"val\.txt: not a readable text file"):
        folder_dataset(folder)


def break_folder(folder: Path) -> set[str]:
    """Gives the folder one case of each kind that is bad, and says their stems."""
    (folder / "images" / "case-00.png").write_bytes(b"no image")
    save(folder / "masks" / "case-01.png", LESION.T)
    (folder / "masks" / "case-02.png").unlink()
    (folder / "images" / "case-03.png").unlink()
    save(folder / "masks" / "case-04.png", np.zeros((3, 4), np.uint8))
    save(folder / "images" / "case-05.jpg", RGB)
    save(folder / "masks" / "case-06.png", np.array([[0, 1, 2, 3]] * 3, np.uint8))
    return {f"case-{number:02d}" for number in range(7)}


def test_bad_cases_stop_with_the_whole_list(folder):
    break_folder(folder)
    with pytest.raises(DataError) as caught:
        folder_dataset(folder)
    head, *lines = str(caught.value).splitlines()
    assert head == "data: 7 bad cases; mend them, or leave them out with skip_bad (--skip-bad):"
    text = "\n".join(lines)
    for words in (
        "case-00.png: not a readable image",
        "case-01: the mask is 3 x 4, the image 4 x 3",
        "case-02: images/case-02.png has no partner in masks/",
        "case-03: masks/case-03.png has no partner in images/",
        "case-04: the mask is empty",
        "case-05: images/case-05.jpg, images/case-05.png: keep one",
        "case-06.png: mask values run from 0 to 3",
    ):
        assert words in text
    assert len(lines) == 7


def test_skip_bad_goes_on_and_names_each(folder):
    bad = break_folder(folder)
    data = folder_dataset(folder, skip_bad=True)
    assert len(data.left_out) == 7
    assert all(any(stem in reason for reason in data.left_out) for stem in bad)
    assert {case.name for case in [*data.train, *data.dev, *data.val]} == {
        f"case-{number:02d}" for number in range(7, 20)
    }


def test_a_limit_still_yields_as_many_good_cases_when_bad_ones_are_skipped(folder):
    whole = folder_dataset(folder)
    for stem in whole.train.names[:3]:
        (folder / "masks" / f"{stem}.png").write_bytes(b"no mask")
    data = folder_dataset(folder, train_limit=4, skip_bad=True)
    assert data.train.names == whole.train.names[3:7]
    assert len(data.left_out) == 3
    assert folder_dataset(folder, train_limit=0).train.names == []


def test_pixels_outside_the_limits_are_not_read(folder):
    unused = folder_dataset(folder).train.names[-1]
    (folder / "images" / f"{unused}.png").write_bytes(b"no image")
    assert len(folder_dataset(folder, train_limit=5).train) == 5
    with pytest.raises(DataError, match=unused):
        folder_dataset(folder)


def test_a_stem_that_only_a_split_file_knows_is_a_bad_case(folder):
    (folder / "val.txt").write_text("case-02\ncase-03.png\n")
    with pytest.raises(DataError, match=r"case-03\.png: listed in a split file, but there is no image"):
        folder_dataset(folder)
    data = folder_dataset(folder, skip_bad=True)
    assert data.val.names == ["case-02"]
    assert len(data.left_out) == 1


def test_a_long_list_is_cut_at_ten_with_a_count(folder):
    for mask in (folder / "masks").iterdir():
        mask.unlink()
    with pytest.raises(DataError) as caught:
        folder_dataset(folder)
    lines = str(caught.value).splitlines()
    assert len(lines) == 12
    assert lines[-1] == "  ... and 10 more"
    with pytest.raises(DataError, match="no usable case is left"):
        folder_dataset(folder, skip_bad=True)


# --- the whole


def test_digest_changes_with_one_pixel_of_an_image_and_of_a_mask(folder):
    before = folder_dataset(folder).digest
    assert folder_dataset(folder).digest == before
    path = folder / "images" / "case-07.png"
    pixels = read_image(path)
    pixels[1, 2, 0] ^= 1
    save(path, pixels)
    changed = folder_dataset(folder).digest
    assert changed != before
    save(folder / "masks" / "case-08.png", LESION ^ np.eye(3, 4, dtype=bool))
    assert folder_dataset(folder).digest not in (before, changed)


def test_a_dataset_can_be_sent_to_another_process(folder):
    data = folder_dataset(folder)
    assert pickle.loads(pickle.dumps(data)).train[0].digest == data.train[0].digest


def test_load_data_takes_a_folder_and_lists_the_choices_otherwise(folder):
    assert load_data(str(folder), train_limit=3).train.names == folder_dataset(folder, train_limit=3).train.names
    with pytest.raises(ConfigError, match="'kvasr' is unknown: use phantom, phantom-ultrasound, kvasir, breast, or a"):
        load_data("kvasr")


@pytest.mark.parametrize("source", ["phantom", "phantom-ultrasound"])
def test_load_data_cuts_phantoms_to_the_limits(source):
    whole = load_data(source)
    assert (len(whole.train), len(whole.dev), len(whole.val)) == (80, 16, 64)
    cut = load_data(source, train_limit=3, dev_limit=0, val_limit=99)
    assert names(cut) == {"train": whole.train.names[:3], "dev": [], "val": whole.val.names}
    assert load_data(source, split_seed=1).train[0].digest != whole.train[0].digest == cut.train[0].digest


def test_importing_the_sources_loads_neither_torch_nor_datasets():
    script = "import medsam_helpers.data.sources, sys; print({'torch', 'datasets', 'pandas'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout == "set()\n"


@pytest.mark.real_data
def test_kvasir_has_its_official_split_and_masks_binarise_as_in_every_paper(real_data):
    data = folder_dataset(real_data / "kvasir-seg", train_limit=20, dev_limit=5)
    assert (len(data.train), len(data.dev), len(data.val)) == (20, 5, 120)
    official = (real_data / "kvasir-seg" / "val.txt").read_text().split()
    assert sorted(data.val.names) == sorted(official)
    whole = make_splits([], 0, {
        split: (real_data / "kvasir-seg" / f"{split}.txt").read_text().split() for split in ("train", "val")
    })  # fmt: skip
    assert {split: len(cases) for split, cases in whole.items()} == {"train": 792, "dev": 88, "val": 120}
    for case in data.train:
        path = real_data / "kvasir-seg" / "masks" / f"{case.name}.jpg"
        assert np.array_equal(case.mask, np.asarray(Image.open(path).convert("L")) > 127)


@pytest.mark.real_data
def test_busi_bilevel_and_rgb_masks_read_alike(real_data):
    data = folder_dataset(real_data / "busi")
    assert len(data.train) + len(data.dev) + len(data.val) == 99
    modes = set()
    for case in [*data.train, *data.val]:
        stored = Image.open(real_data / "busi" / "masks" / f"{case.name}.png")
        modes.add(stored.mode)
        assert np.array_equal(case.mask, np.asarray(stored.convert("L")) > 127)
    assert modes == {"1", "RGB"}
