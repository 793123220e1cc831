"""Every kind of image and mask file, and what is said of those that cannot be used."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from helpers import patchwork
from PIL import Image

from medsam_helpers.data.reading import read_case, read_image, read_mask
from medsam_helpers.data.sources import Selection
from medsam_helpers.errors import ConfigError, DataError

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
    "gray-level.png": LESION * np.uint8(200),
    "noisy.jpg": np.kron(LESION, np.ones((24, 24), bool)).astype(np.uint8) * 255,
    "uint16-full.png": LESION.astype(np.uint16) * 65535,
    "float.tif": LESION.astype(np.float32) * 0.9,
    "blue.bmp": LESION[..., None] * np.array([0, 0, 255], np.uint8),
    "white-on-nothing.png": np.dstack([np.full(LESION.shape, 255, np.uint8)] * 3 + [LESION * np.uint8(255)]),
    "black-on-nothing.png": np.dstack([np.zeros(LESION.shape, np.uint8)] * 3 + [LESION * np.uint8(255)]),
    "palette-colour.png": painted([0, 0, 0, 128, 0, 0], LESION),
    "palette-white-first.gif": painted([255, 255, 255, 0, 0, 0], ~LESION),
}


@pytest.mark.parametrize("name", MASK_FILES)
def test_one_rule_reads_every_kind_of_binary_mask(tmp_path, name):
    options = {"quality": 60} if name.endswith("jpg") else {}
    read = read_mask(save(tmp_path / name, MASK_FILES[name], **options))
    lesion = LESION if read.mask.shape == LESION.shape else np.kron(LESION, np.ones((24, 24), bool))
    assert read.mask.dtype == bool
    assert np.array_equal(read.mask, lesion)


def test_the_orientation_tag_is_applied_or_ignored_and_a_mask_without_one_is_doubted(tmp_path):
    square = patchwork(0)
    image, mask = save(tmp_path / "a.png", square, exif=EXIF), save(tmp_path / "m.png", square[..., 0] > 100)
    applied, ignored = (read_case("a", image, [mask], Selection(exif=exif)) for exif in ("apply", "ignore"))
    assert np.array_equal(applied.image, np.rot90(square, k=-1))
    assert np.array_equal(read_image(image), applied.image)
    assert np.array_equal(ignored.image, square)
    assert [(found.problem, found.severity) for found in applied.findings] == [("orientation", "warning")]
    assert "--exif ignore" in applied.findings[0].detail
    both = save(tmp_path / "both.png", square[..., 0] > 100, exif=EXIF)
    assert np.array_equal(read_mask(both).mask, np.rot90(square[..., 0] > 100, k=-1))
    assert not read_case("a", image, [both], Selection()).findings


def test_gray_tiff_files_are_turned_upright_whole(tmp_path):
    tifffile.imwrite(tmp_path / "turned.tif", GRAY, extratags=[(274, "H", 1, 6, True)])
    tifffile.imwrite(tmp_path / "deep.tif", GRAY.astype(np.uint16) * 9, extratags=[(274, "H", 1, 6, True)])
    assert np.array_equal(read_image(tmp_path / "turned.tif")[..., 0], np.rot90(GRAY, k=-1))
    image, mask = tmp_path / "image.tif", tmp_path / "mask.tif"
    for tag, upright in ((6, np.rot90(LESION, k=-1)), (7, LESION[::-1, ::-1].T)):
        for file, pixels in ((image, GRAY.astype(np.uint16)), (mask, LESION.astype(np.uint8))):
            tifffile.imwrite(file, pixels, extratags=[(274, "H", 1, tag, True)])
        applied, ignored = (read_case("a", image, [mask], Selection(exif=exif)) for exif in ("apply", "ignore"))
        assert np.array_equal(applied.mask, upright)
        assert np.array_equal(ignored.mask, LESION)
        assert not applied.findings
    assert np.array_equal(read_image(tmp_path / "deep.tif")[..., 0], np.rint(np.rot90(GRAY, k=-1) * (255 / 220)))


DEEP = np.arange(12).reshape(3, 4)  # stretched to 0..255, whatever the type: 255 / 11 a step


@pytest.mark.parametrize(
    ("values", "options"),
    [
        (DEEP.astype(np.float64) / 7, {}),
        (DEEP.astype(np.int8) - 6, {}),
        (DEEP.astype(np.uint32) * 300_000_000, {}),
        (DEEP.astype(">u2") * 300, {"byteorder": ">"}),
        (4000 - DEEP.astype(np.uint16) * 300, {"photometric": "miniswhite"}),
        (np.stack([DEEP.astype(np.uint16) * 300] * 3), {"photometric": "rgb", "planarconfig": "separate"}),
        (np.dstack([DEEP.astype(np.float32)] * 3), {"photometric": "rgb"}),
    ],
    ids=["float64", "int8", "uint32", "big-endian", "white-is-0", "planar-16", "rgb-float"],
)
def test_tiff_files_of_every_type_keep_their_values(tmp_path, values, options):
    tifffile.imwrite(tmp_path / "a.tif", values, **options)
    assert np.array_equal(read_image(tmp_path / "a.tif")[..., 1], np.rint(DEEP * (255 / 11)).astype(np.uint8))


def test_a_window_says_what_is_black_and_white(tmp_path):
    ct = save(tmp_path / "ct.tif", np.array([[-2000, -160, 40, 240, 3000]], np.int32))
    assert read_image(ct, window="-160:240")[0, :, 0].tolist() == [0, 0, 127, 255, 255]
    assert read_image(ct, window="25%:75%")[0, :, 0].tolist() == [0, 0, 127, 255, 255]
    for wrong in ("240:-160", "soft", "10%:90", "-5%:90%"):
        with pytest.raises(ConfigError, match=r"window .*: use values"):
            read_image(ct, window=wrong)


def test_pictures_that_hide_themselves_are_read_or_refused(tmp_path):
    hidden = np.dstack([RGB, np.zeros(GRAY.shape, np.uint8)])
    assert np.array_equal(read_image(save(tmp_path / "alpha.png", hidden)), RGB)
    rows = b"".join(b"\0" + row.tobytes() for row in np.full((4, 4, 3), 2000, ">u2"))  # 12 bits in 16
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    png = b"".join(struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in chunks)
    with pytest.raises(DataError, match="16 bits a channel"):
        read_image(b"\x89PNG\r\n\x1a\n" + png)


def test_a_case_needs_one_size_and_a_lesion_and_may_have_several_masks(tmp_path):
    image = save(tmp_path / "a.png", RGB)
    with pytest.raises(DataError, match=r"a: the mask is 3 x 4, the image 4 x 3 \(EXIF rotation: apply"):
        read_case("a", image, [save(tmp_path / "turned.png", LESION.T)], Selection())
    empty = save(tmp_path / "empty.png", LESION & False)
    with pytest.raises(DataError, match=r"a: the mask is empty.*--empty-masks keep"):
        read_case("a", image, [empty], Selection())
    assert not read_case("a", image, [empty], Selection(empty_masks="keep")).mask.any()
    masks = [save(tmp_path / "1.png", LESION), save(tmp_path / "2.png", np.flipud(LESION))]
    two = read_case("a", image, masks, Selection())
    assert np.array_equal(two.mask, LESION | np.flipud(LESION))
    assert set(np.unique(two.labels)) == {0, 1, 2}


def test_ignored_labels_count_nowhere(tmp_path):
    labels = np.array([[0, 1, 1, 0], [1, 2, 3, 0], [255] * 4], np.uint8)
    image, mask = save(tmp_path / "a.png", RGB), save(tmp_path / "m.png", labels)
    case = read_case("a", image, [mask], Selection(classes="1,3", ignore="255"))
    assert case.mask.astype(int).tolist() == [[0, 1, 1, 0], [1, 0, 1, 0], [0] * 4]
    assert case.ignored[2].all()
    assert case.labels.tolist() == [[0, 1, 1, 0], [1, 0, 2, 0], [0] * 4]
