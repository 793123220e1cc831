"""What both kinds of phantom are drawn with: a pixel grid, smooth noise, soft steps and lobed outlines."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Field = NDArray[np.float32]
"""One number a pixel, (H, W). Plain Python floats keep a field in float32; numpy's own float64 scalars would not."""
Pair = Sequence[float] | np.ndarray


class Canvas:
    """The pixel grid of a picture; x and y have their origin in the middle and reach +-1 on the shorter side."""

    def __init__(self, width: int, width_over_height: float) -> None:
        height = round(width / width_over_height)
        self.size_hw = height, width
        self.unit = min(height, width) / 2  # pixels in a length of 1
        y, x = np.mgrid[:height, :width].astype(np.float32) + 0.5
        self.x: Field = (x - width / 2) / self.unit
        self.y: Field = (y - height / 2) / self.unit

    def noise(self, rng: np.random.Generator, scale: float | Pair, octaves: int = 1) -> Field:
        """Smooth noise round 0 with standard deviation about 1, its features `scale` (or y, x scales) wide.

        Each further octave is half as wide and half as strong.
        """
        steps = np.broadcast_to(np.asarray(scale) * self.unit, 2)
        field = Image.new("F", (1, 1))
        for octave in range(octaves):  # each on a grid of its own size: only the last step is as large as the picture
            rows, columns = np.divide(self.size_hw, steps / 2**octave)
            knots = rng.standard_normal((int(rows) + 5, int(columns) + 5), np.float32) / np.float32(2**octave)
            field = Image.fromarray(knots + np.asarray(field.resize(knots.shape[::-1], Image.Resampling.BICUBIC)))
        left, top = 1 + rng.random(2)
        box = (left, top, left + columns, top + rows)
        spread = 1.5 / sum(0.25**octave for octave in range(octaves)) ** 0.5
        return np.asarray(field.resize(self.size_hw[::-1], Image.Resampling.BICUBIC, box)) * np.float32(spread)


def soft_step(value: Field, low: float | Field, high: float | Field) -> Field:
    """0 below `low`, 1 above `high`, smooth between (Hermite); `low > high` turns it round."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def heading(angle: float) -> np.ndarray:
    """The unit vector (x, y) in a direction."""
    return np.array([np.cos(angle), np.sin(angle)])


def ellipse_distance(x: Field, y: Field, centre: Pair, radii: Pair, angle: float = 0.0) -> Field:
    """0 at the centre of an ellipse, 1 on its outline, in proportion between and beyond."""
    dx, dy = x - float(centre[0]), y - float(centre[1])
    cos, sin = heading(angle).tolist()
    u, v = (cos * dx + sin * dy) / float(radii[0]), (cos * dy - sin * dx) / float(radii[1])
    return np.sqrt(u * u + v * v)


def union(distances: Sequence[Field], sharpness: float = 8.0) -> Field:
    """Several shapes grown together: about the smallest of their distances, with the notches between them filled."""
    nearest = np.minimum.reduce(distances)
    return nearest - np.log(sum(np.exp(sharpness * (nearest - distance)) for distance in distances)) / sharpness


def lobed_distance(
    x: Field, y: Field, centre: np.ndarray, size: float, lobes: int, waves: float, rng: np.random.Generator
) -> Field:
    """0 inside, about 1 on the outline of an ellipse with lobes on it, its edge waving by about `waves`."""
    parts = [ellipse_distance(x, y, centre, (size, size * rng.uniform(0.5, 1)), rng.normal(0, 0.6))]
    for _ in range(lobes):
        turn, radius = rng.uniform(0, 2 * np.pi), size * rng.uniform(0.4, 0.75)
        offset = size * rng.uniform(0.5, 0.95) * heading(turn)
        parts.append(ellipse_distance(x, y, centre + offset, (radius, radius * rng.uniform(0.7, 1)), turn))
    turns = np.linspace(-np.pi, np.pi, 4097, dtype=np.float32)  # a table of the wave: cheaper than cosines a pixel
    wave = sum(rng.normal() / order * np.cos(order * turns + rng.uniform(0, 2 * np.pi)) for order in range(2, 8))
    angle = np.arctan2(y - float(centre[1]), x - float(centre[0]))
    place = np.rint((angle + np.pi) * (4096 / (2 * np.pi))).astype(np.intp)
    return union(parts) * np.exp(waves * wave).astype(np.float32)[place]
