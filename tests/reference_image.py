"""A fixed picture by formula, for which the original implementations' answers are stored in `tests/sam`."""

import numpy as np

BOX = np.array([150.0, 90.0, 330.0, 260.0], np.float32)


def reference_image() -> np.ndarray:
    """(400, 600, 3) uint8: a textured ground with a brighter ellipse in it."""
    y, x = np.mgrid[:400, :600].astype(np.float64)
    ground = 120 + 40 * np.sin(x / 23) * np.cos(y / 31)
    ellipse = ((x - 240) / 80) ** 2 + ((y - 175) / 75) ** 2 < 1
    red = ground + 70 * ellipse
    return np.stack([red, 0.7 * red, 0.5 * red + 30 * np.sin(y / 11)], axis=2).clip(0, 255).astype(np.uint8)
