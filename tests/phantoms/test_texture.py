"""What phantoms are drawn with: grid, noise, steps and outlines, by hand."""

import numpy as np
import pytest

from medsam_helpers.phantoms.texture import Canvas, ellipse_distance, soft_step, union


def test_canvas_is_centred_and_reaches_one_on_the_shorter_side():
    canvas = Canvas(8, 2.0)
    assert canvas.size_hw == (4, 8)
    assert canvas.y[:, 0].tolist() == [-0.75, -0.25, 0.25, 0.75]
    assert canvas.x[0, [0, -1]].tolist() == [-1.75, 1.75]


@pytest.mark.parametrize("octaves", [1, 4])
def test_noise_is_float32_with_the_promised_spread(octaves):
    canvas = Canvas(300, 1.2)
    drawn = [canvas.noise(np.random.default_rng(seed), 0.2, octaves) for seed in range(8)]
    assert (drawn[0].dtype, drawn[0].shape) == (np.float32, canvas.size_hw)
    assert abs(np.mean(drawn)) < 0.15
    assert 0.7 < np.std(drawn) < 1.3


def test_steps_and_distances_by_hand():
    values = np.array([-1, 0, 0.5, 1, 2], np.float32)
    assert soft_step(values, 0, 1).tolist() == [0, 0, 0.5, 1, 1]
    assert soft_step(values, 1, 0).tolist() == [1, 1, 0.5, 0, 0]
    x, y = np.array([1, 3, 1, 5], np.float32), np.array([2, 2, 3, 2], np.float32)
    assert ellipse_distance(x, y, (1, 2), (2, 1)).tolist() == [0, 1, 1, 2]
    assert ellipse_distance(x, y, (1, 2), (1, 2), np.pi / 2) == pytest.approx([0, 1, 1, 2])
    one, other = np.array([0.2, 1.0], np.float32), np.array([2.0, 1.0], np.float32)
    assert union([one, other], sharpness=8) == pytest.approx([0.2, 1 - np.log(2) / 8], abs=1e-5)
