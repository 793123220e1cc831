"""Answers of a model: what is accepted, what is told of them, how they travel to the browser."""

import io

import numpy as np
import pytest
from helpers import mask_of
from PIL import Image

from medsam_helpers.errors import ShapeError
from medsam_helpers.widgets.answers import MAX_SHOWN, image_png, mask_layer, read_answer


def decoded(png):
    return np.asarray(Image.open(io.BytesIO(png)))


@pytest.mark.parametrize(
    "result",
    [np.zeros((60, 99), bool), np.zeros((60, 100)), (np.zeros((2, 60, 100), bool), [0.5])],
    ids=["another size", "no booleans", "a score for two masks"],
)
def test_an_answer_of_the_wrong_kind_is_named(result):
    with pytest.raises(ShapeError):
        read_answer(result, (60, 100), None, 0.0)


def test_the_caption_tells_scores_and_dice_or_else_the_share_of_the_image(truth):
    assert read_answer((truth, [0.9]), truth.shape, truth, 0.0).caption() == "score 0.90 · Dice 1.00"
    many = read_answer((np.repeat(truth[None], 7, 0), [0.5] * 7), truth.shape, None, 0.0)
    assert many.caption() == f"score {'0.50, ' * 6}..."
    assert read_answer(truth, truth.shape, None, 0.0).caption() == "13.3 % of the image"


def test_a_mask_travels_as_its_own_part_of_the_image_and_smaller_where_that_is_large(truth):
    layer = mask_layer(truth)
    assert (layer["x"], layer["y"]) == (20, 10)
    assert np.array_equal(decoded(layer["bytes"]), truth[10:30, 20:60])
    assert mask_layer(np.zeros((4, 4), bool)) is None
    layer = mask_layer(mask_of((5000, 2500), (2500, 5000, 0, 1250)))
    assert (layer["x"], layer["y"]) == (0, MAX_SHOWN // 2)
    assert decoded(layer["bytes"]).shape == (MAX_SHOWN // 2, MAX_SHOWN // 4)
    image = np.zeros((5000, 2500, 3), np.uint8)
    assert decoded(image_png(image)).shape == (MAX_SHOWN, MAX_SHOWN // 2, 3)
