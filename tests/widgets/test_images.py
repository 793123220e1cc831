"""Images for the demo: uploads of every kind, folders with and without masks."""

import io

import numpy as np
import pytest
from PIL import Image

from medsam_helpers.errors import ConfigError, DataError
from medsam_helpers.phantoms.dataset import phantom_dataset, save_folder
from medsam_helpers.widgets.images import picture_source, read_upload

GRAY = np.random.default_rng(0).integers(0, 255, (40, 60), np.uint8)


def encoded(array, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def test_an_upload_becomes_upright_rgb():
    assert np.array_equal(read_upload("gray.png", encoded(GRAY)).image, np.repeat(GRAY[..., None], 3, 2))
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown a quarter turn clockwise
    assert read_upload("phone.jpg", encoded(GRAY, "JPEG", exif=turned)).image.shape == (60, 40, 3)


@pytest.mark.parametrize("content", [b"not an image", encoded(GRAY)[:500]], ids=["text", "half"])
def test_a_wrong_upload_is_named(content):
    with pytest.raises(DataError, match=r"^holiday\.png: not a readable image"):
        read_upload("holiday.png", content)


def test_a_decompression_bomb_is_refused_before_it_is_unpacked():
    bomb = encoded(np.zeros((9500, 9500), bool))
    assert len(bomb) < 20_000
    with pytest.raises(DataError, match="bomb"):
        read_upload("bomb.png", bomb)


def test_folders_with_masks_give_truth_and_folders_of_images_do_not(tmp_path):
    save_folder(phantom_dataset(n_train=4, n_dev=0, n_val=2), tmp_path / "set", show_progress=False)
    of_set, plain = picture_source(tmp_path / "set"), picture_source(tmp_path / "set" / "images")
    assert of_set.names == ["endoscopy-val-0000", "endoscopy-val-0001"]
    assert len(plain.names) == 6
    pictures = [source.load(source.names[0]) for source in (of_set, plain)]
    assert [picture.truth is None for picture in pictures] == [False, True]
    for picture in pictures:
        names = {}
        exec(picture.code, names)
        assert np.array_equal(names["image"], picture.image)


def test_a_source_without_images_is_named(tmp_path):
    with pytest.raises(DataError, match="no file"):
        picture_source(tmp_path)
    with pytest.raises(ConfigError, match="unknown"):
        picture_source("phantoms")
