"""A mask is binary, binary with noise, a label map, or a picture: which one, and what is said of the last two."""

import io

import numpy as np
import pytest
from helpers import patchwork
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from medsam_helpers.data.masks import kind_of, read_values
from medsam_helpers.errors import ConfigError, DataError


def discs(*values, size=120):
    """Discs of the given values on 0, from the left to the right, each 24 across."""
    y, x = np.ogrid[:size, : 40 * len(values)]
    drawn = np.zeros((size, 40 * len(values)), np.uint8 if max(values) < 256 else np.int32)
    for number, value in enumerate(values):
        drawn[(y - 60) ** 2 + (x - 40 * number - 20) ** 2 < 12**2] = value
    return drawn


def as_jpeg(values, quality):
    Image.fromarray(values).save(file := io.BytesIO(), "JPEG", quality=quality)
    return np.asarray(Image.open(file))


@settings(max_examples=30, deadline=None)
@given(st.integers(20, 100), st.integers(1, 4), st.sampled_from([0, 1, 2]))
def test_jpeg_noise_and_soft_edges_are_never_taken_for_labels(quality, lesions, blur):
    drawn = discs(*[255] * lesions)
    soft = np.asarray(Image.fromarray(drawn).filter(ImageFilter.GaussianBlur(blur)))
    for noisy in (soft, as_jpeg(soft, quality)):
        assert kind_of(noisy) in ("binary", "lossy")
        assert read_values(noisy).mask.sum() == pytest.approx((drawn > 0).sum(), rel=0.1)


@pytest.mark.parametrize("values", [(127, 254), (1, 255), (1, 2, 254, 255), tuple(range(1, 200)), (300, 500)])
def test_label_maps_are_refused_with_their_values_their_shares_and_what_to_add(values):
    drawn = discs(*values)
    with pytest.raises(DataError, match="a label map, not one lesion: 0 ") as caught:
        read_values(drawn, shown="a.png")
    assert f"{values[0]} ({100 * (drawn == values[0]).mean():.1f} %)" in str(caught.value)
    chosen = ",".join(map(str, values)) if len(values) <= 6 else "all"
    assert f"--classes {chosen} " in str(caught.value)
    assert caught.value.problem == "label map"
    read = read_values(drawn, classes=chosen.split(","))
    assert np.array_equal(read.mask, drawn > 0)
    assert read.labels.max() == len(values)
    assert np.array_equal(read_values(drawn, classes=[str(values[0])]).mask, drawn == values[0])


def test_thin_classes_and_colours_are_labels_too():
    thin = np.zeros((40, 40), np.uint8)
    thin[10], thin[20], thin[30] = 85, 170, 255
    assert kind_of(thin) == "labels"
    colours = np.where(discs(1, 2) == 1, 0x004000, np.where(discs(1, 2) == 2, 0xFF0000, 0))
    with pytest.raises(DataError, match=r"#004000 \(4.6 %\), .*--classes '#004000,#ff0000' .*--ignore '#ff0000' "):
        read_values(colours, coloured=True)
    assert np.array_equal(read_values(colours, True, classes=["#004000"]).mask, colours == 0x004000)


def test_photographs_are_no_masks():
    for picture in (np.random.default_rng(0).integers(0, 256, (60, 60)), np.mgrid[:60, :200][1]):
        with pytest.raises(DataError, match="a photograph or an overlay"):
            read_values(picture.astype(np.uint8))
    assert kind_of(patchwork(0)[..., 0]) == "labels"


def test_a_binary_mask_tells_what_stood_for_its_lesion():
    assert [read_values(discs(value)).value for value in (1, 2, 128, 255, 65535)] == [1, 2, 128, 255, 255]
    inverted = 255 - discs(255)
    assert np.array_equal(read_values(inverted, classes=["0"]).mask, inverted == 0)


@pytest.mark.parametrize("wrong", [{"classes": ("lesion",)}, {"classes": ("#red",)}, {"ignore": ("255",)}])
def test_labels_that_are_none_are_refused(wrong):
    with pytest.raises(ConfigError, match=r"labels .*use numbers|ignore names the labels"):
        read_values(discs(255), **wrong)
