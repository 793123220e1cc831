"""A video of one image: a camera that moves over the lesion, an instrument before it, the lesion out of sight."""

from functools import partial

import numpy as np
from scipy import ndimage

from medsam_helpers.data.case import Case, Cases
from medsam_helpers.errors import ConfigError
from medsam_helpers.phantoms.dataset import draw_phantom

_HEIGHT, _WIDTH = 256, 320  # of a frame, pixels


def phantom_video(seed: int = 0, count: int = 60) -> Cases:
    """Frames of a video of a colonoscopy phantom, see `filmed`; no figure on them is a finding.

    Another seed is another lesion and another way of the camera.
    """
    rng = np.random.default_rng([seed, 20])
    while True:
        image, mask = draw_phantom("endoscopy", rng)
        off_centre = abs(np.array(ndimage.center_of_mass(mask)) / mask.shape - 0.5).max()
        if 0.01 < mask.mean() < 0.05 and ndimage.label(mask)[1] == 1 and 0.1 < off_centre < 0.25:
            return filmed(Case(f"video-{seed}", image, mask), seed, count)


def filmed(case: Case, seed: int = 0, count: int = 60) -> Cases:
    """Frames of a camera that moves over one image, with exact masks, each drawn when it is asked for.

    The lesion moves, turns, grows and shrinks. An instrument passes before it about the middle, and soon after the
    camera looks away for a while: what is hidden or out of sight is not in the mask.

    Args:
        case: with a lesion.
        seed: another seed, another way of the camera.
        count: number of frames over the same time: fewer are farther apart.
    Returns:
        Cases of (256, 320) pixels, "NAME-0000" and on.
    Raises:
        ConfigError: `count` is below 2.
    """
    if count < 2:
        raise ConfigError(f"a video of {count} frames: take 2 or more")
    return Cases([f"{case.name}-{number:04d}" for number in range(count)], partial(_frame, case, seed, count))


def _frame(case: Case, seed: int, count: int, name: str) -> Case:
    number = int(name.rsplit("-", 1)[1])
    phase = np.random.default_rng([seed, 21]).uniform(0, 2 * np.pi, 5)
    time, size, lesion = number / (count - 1), np.array(case.size_hw), np.array(ndimage.center_of_mass(case.mask))
    sway = [np.sin(speed * time + start) for speed, start in zip((7, 9, 5, 6, 8), phase, strict=True)]
    view = 0.38 * size.min()  # of the image, along a frame's height
    aside = size / 2 - lesion + 1  # away from the lesion, over the rest of the image
    away = np.clip(1.7 - abs(time - 0.7) / 0.07, 0, 1) * 1.3 * view * aside / np.hypot(*aside)
    zoom, turn = view / _HEIGHT * (1 + 0.2 * sway[2]), 0.7 * sway[3]
    matrix = zoom * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    offset = lesion + 0.22 * view * np.array(sway[:2]) + away - matrix @ [_HEIGHT / 2, _WIDTH / 2]
    layers = [*np.moveaxis(case.image, 2, 0), case.mask * np.uint8(255)]
    frame = np.stack([ndimage.affine_transform(one, matrix, offset, (_HEIGHT, _WIDTH), order=1) for one in layers])
    image, mask = frame[:3] * (1 + 0.12 * sway[4]), frame[3] > 127  # the lamp is nearer, or farther
    along = np.arange(_WIDTH) - _WIDTH * (5 * (time - 0.45) + 0.5) - 0.4 * np.arange(_HEIGHT)[:, None]
    if np.any(tool := abs(along) < 0.11 * _WIDTH):  # a shaft that crosses the picture, light along its middle
        image = np.where(tool, 190 - 130 * (along / (0.11 * _WIDTH)) ** 2, image)
    image += np.random.default_rng([seed, number]).normal(0, 2, image.shape)
    return Case(name, np.moveaxis(image, 0, 2).clip(0, 255).astype(np.uint8).copy(), mask & ~tool)
