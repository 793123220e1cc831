"""What both kinds of phantom are drawn with: smooth noise, soft steps and lobed outlines on a pixel grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Field = NDArray[np.float32]


@dataclass(frozen=True)
class Canvas:
    """The pixel grid of a picture; x and y have their origin in the middle and reach +-1 on the shorter side."""

    size_hw: tuple[int, int]
    x: Field
    y: Field

    @classmethod
    def of_width(cls, width: int, width_over_height: float) -> Canvas:
        """A canvas so many pixels wide."""
        height = round(width / width_over_height)
        y, x = np.mgrid[:height, :width].astype(np.float32)
        unit = min(height, width) / 2
        return cls((height, width), (x + 0.5 - width / 2) / unit, (y + 0.5 - height / 2) / unit)

    @property
    def unit(self) -> float:
        """Pixels in a length of 1."""
        return min(self.size_hw) / 2

    def noise(self, rng: np.random.Generator, scale: float | tuple[float, float], octaves: int = 1) -> Field:
        """Smooth noise round 0 with standard deviation about 1, its features `scale` (or y, x scales) wide.

        Each further octave is half as wide and half as strong.
        """
        height, width = self.size_hw
        total = np.zeros(self.size_hw, np.float32)
        for octave in range(octaves):
            step_y, step_x = np.broadcast_to(np.asarray(scale) * self.unit, 2) / 2**octave
            rows, columns = height / step_y, width / step_x
            knots = rng.standard_normal((int(rows) + 5, int(columns) + 5), np.float32)
            top, left = 1 + rng.random(2)
            box = (left, top, left + columns, top + rows)
            fine = Image.fromarray(knots).resize((width, height), Image.Resampling.BICUBIC, box)
            total += np.asarray(fine) / np.float32(2**octave)
        return total * (1.5 / sum(0.25**octave for octave in range(octaves)) ** 0.5)


def soft_step(value: Field, low: float, high: float) -> Field:
    """0 below `low`, 1 above `high`, smooth between (Hermite); `low > high` turns it round."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def ellipse_distance(
    x: Field, y: Field, centre: tuple[float, float], radii: tuple[float, float], angle: float
) -> Field:
    """(H, W): 0 at the centre of an ellipse, 1 on its outline, growing in proportion to the distance from the centre."""
    dx, dy = x - float(centre[0]), y - float(centre[1])
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    u, v = (cos * dx + sin * dy) / float(radii[0]), (cos * dy - sin * dx) / float(radii[1])
    return np.sqrt(u * u + v * v)


def smooth_union(distances: list[Field], sharpness: float = 8.0) -> Field:
    """Several shapes grown together: about the smallest of their distances, with the notches between them filled."""
    nearest = np.minimum.reduce(distances)
    return nearest - np.log(sum(np.exp(-sharpness * (d - nearest)) for d in distances)) / sharpness


def wavy(
    distance: Field, x: Field, y: Field, centre: tuple[float, float], strength: float, rng: np.random.Generator
) -> Field:
    """A distance whose outline waves in and out by about `strength`, in 2 to 7 harmonics round the centre."""
    angle = np.arctan2(y - float(centre[1]), x - float(centre[0]))
    wave = sum(rng.normal() / order * np.cos(order * angle + rng.uniform(0, 2 * np.pi)) for order in range(2, 8))
    return distance * np.exp(strength * wave)
