"""Every kind of image and mask file, and what is said of those that cannot be used."""

from pathlib import Path

import numpy as np
import pytest
from helpers import patchwork
from PIL import Image

from medsam_helpers.data.reading import make_case, read_image, read_mask
from medsam_helpers.errors import DataError

GRAY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
RGB = np.stack([GRAY, GRAY // 2, 255 - GRAY], axis=2)
LESION = np.array([[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 0, 0]], bool)
EXIF = Image.Exif()
EXIF[Image.ExifTags.Base.Orientation] = 6  # turn by 90 degrees clockwise to see it upright


def save(path: Path, picture: np.ndarray | Image.Image, mode: str | None = None, **options) -> Path:
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def painted(palette: list[int], indices: np.ndarray) -> Image.Image:
    image = Image.fromarray(indices.astype(np.uint8), "L")
    image.putpalette(palette)
    return image


def test_colour_gray_palette_and_bilevel_images_become_rgb(tmp_path):
    assert np.array_equal(read_image(save(tmp_path / "rgb.bmp", RGB)), RGB)
    assert np.array_equal(read_image(save(tmp_path / "palette.png", GRAY, "P")), np.dstack([GRAY] * 3))
    assert np.array_equal(read_image(save(tmp_path / "bits.png", LESION))[..., 1], LESION * 255)
    path = save(tmp_path / "a.jpg", patchwork(0), quality=90)
    for source in (path, path.read_bytes()):
        assert np.array_equal(read_image(source), np.asarray(Image.open(path)))


def test_transparent_pixels_lie_on_black_and_half_transparent_ones_are_halved(tmp_path):
    rgba = np.full((1, 3, 4), 200, np.uint8)
    rgba[0, :, 3] = [255, 0, 128]
    assert read_image(save(tmp_path / "a.png", rgba))[0, :, 0].tolist() == [200, 0, 100]
    palette = painted([90, 90, 90, 60, 60, 60], np.array([[0, 1]]))
    assert read_image(save(tmp_path / "p.png", palette, transparency=0))[0, :, 0].tolist() == [0, 60]


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_more_than_8_bits_are_stretched_from_minimum_to_maximum(tmp_path, dtype):
    read = read_image(save(tmp_path / "deep.tif", np.array([[1000, 2000], [3000, 4095]], dtype)))
    assert read[..., 2].ravel().tolist() == [0, 82, 165, 255]  # 255 x 1000 / 3095, 255 x 2000 / 3095
    assert not read_image(save(tmp_path / "flat.tif", np.full((2, 2), 700, dtype))).any()


def test_exif_rotation_is_applied(tmp_path):
    assert np.array_equal(read_image(save(tmp_path / "a.png", GRAY, exif=EXIF))[..., 0], np.rot90(GRAY, k=-1))
    assert np.array_equal(read_mask(save(tmp_path / "mask.png", LESION, exif=EXIF)), np.rot90(LESION, k=-1))


def test_damaged_absent_stacked_and_not_finite_images_are_refused_by_name(tmp_path):
    (tmp_path / "cut.png").write_bytes(save(tmp_path / "whole.png", patchwork(0)).read_bytes()[:200])
    Image.fromarray(GRAY).save(tmp_path / "stack.tif", save_all=True, append_images=[Image.fromarray(GRAY)] * 2)
    save(tmp_path / "nan.tif", np.array([[0, np.nan]], np.float32))
    told = {"cut.png": "not a readable", "absent.png": "no such", "stack.tif": "3 frames", "nan.tif": "not finite"}
    for name, words in told.items():
        with pytest.raises(DataError, match=f"{name}: .*{words}"):
            read_image(tmp_path / name)
    with pytest.raises(DataError, match="image bytes"):
        read_mask(b"hello")


MASK_FILES = {
    "bits.png": LESION,
    "labels.png": LESION.astype(np.uint8),
    "gray-levels.png": np.where(LESION, 200, 90).astype(np.uint8),
    "noisy.jpg": LESION.astype(np.uint8) * 255,
    "uint16-full.png": LESION.astype(np.uint16) * 65535,
    "float.tif": LESION.astype(np.float32) * 0.9,
    "blue.bmp": LESION[..., None] * np.array([0, 0, 255], np.uint8),
    "white-on-nothing.png": np.dstack([np.full(LESION.shape, 255, np.uint8)] * 3 + [LESION * np.uint8(255)]),
    "palette-colour.png": painted([0, 0, 0, 128, 0, 0], LESION),
    "palette-white-first.gif": painted([255, 255, 255, 0, 0, 0], ~LESION),
}


@pytest.mark.parametrize("name", MASK_FILES)
def test_one_rule_reads_every_kind_of_mask(tmp_path, name):
    read = read_mask(save(tmp_path / name, MASK_FILES[name]))
    assert read.dtype == bool
    assert np.array_equal(read, LESION)


@pytest.mark.parametrize("values", [[[0, 1, 2, 3]], [[-1, 1]], [[0, 100_000]]])
def test_masks_that_leave_it_open_what_is_the_lesion_are_refused(tmp_path, values):
    with pytest.raises(DataError, match=r"several\.tif: mask values run from .*one mask a lesion class"):
        read_mask(save(tmp_path / "several.tif", np.array(values, np.int32)))


def test_a_case_needs_one_size_and_a_lesion():
    with pytest.raises(DataError, match=r"a: the mask is 3 x 4, the image 4 x 3 \(EXIF rotation applied"):
        make_case("a", RGB, LESION.T)
    with pytest.raises(DataError, match="a: the mask is empty"):
        make_case("a", RGB, LESION & False)
