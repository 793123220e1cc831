"""Draws one breast ultrasound phantom: layers of tissue, scatterers in them, and the pulse that passes over all."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from scipy import ndimage

from medsam_helpers.phantoms.texture import Canvas, Field, lobed_distance, soft_step


def draw_ultrasound(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One image (H, W, 3) uint8 with the mask (H, W) bool of its lesion.

    Echoes add up as waves, phase and all, before the envelope is taken and compressed: that is what makes the
    speckle. What the pulse loses or keeps on its way through the lesion is missing or left over behind it.
    """
    canvas = Canvas(int(rng.uniform(380, 620)), rng.choice([1.02, 1.12, 1.2, 1.28]))
    depth = (canvas.y - canvas.y[0, 0]) / np.ptp(canvas.y)
    benign = rng.random() < 0.5
    distance = _draw_outline(canvas, benign, rng)
    echo, sheets = _draw_tissue(canvas, depth, rng)
    bands = np.maximum(canvas.noise(rng, (4.0, 0.3), 2), 0) * rng.uniform(0, 8)  # under poor contact
    loss = (rng.uniform(2, 26) * depth**2 + bands * depth).astype(np.float32)  # decibels lost on the way
    inside = _place_lesion(canvas, distance, benign, echo, rng)
    through = rng.uniform(-20, -3) if benign else rng.uniform(-5, 35)  # decibels lost (or spared) in a length of 1
    passed = np.cumsum(inside, axis=0) / canvas.unit
    loss += through * ndimage.gaussian_filter1d(passed, 0.05 * canvas.unit, axis=1)
    envelope = _send_pulse(echo, sheets * (1 - inside), rng)
    return _screen(canvas, envelope, loss, distance, rng), distance < 1


def _draw_outline(canvas: Canvas, benign: bool, rng: np.random.Generator) -> Field:
    """Distance to the lesion, 1 on its outline: a smooth oval, or lobes with angles and spikes."""
    area = float(np.clip(np.exp(rng.normal(np.log(0.045 if benign else 0.09), 0.9)), 0.012, 0.45))
    size = float(np.sqrt(area))
    centre = rng.uniform((-0.6, -0.55), (0.6, 0.25))
    warp = size * (rng.uniform(0, 0.05) if benign else rng.uniform(0.04, 0.11))
    x = canvas.x + warp * canvas.noise(rng, 0.35 * size, 3)
    y = canvas.y + warp * canvas.noise(rng, 0.35 * size, 3)
    lobes = int(rng.integers(0, 2) if benign else rng.integers(1, 4))
    waves = 0.02 if benign else rng.uniform(0.05, 0.15)
    distance = lobed_distance(x, y, centre, size, lobes, waves, rng)
    distance /= float(np.quantile(distance[::3, ::3], area))
    parts, _ = ndimage.label(distance < 1)
    islands = (parts > 0) & (parts != np.bincount(parts[parts > 0]).argmax())
    return np.where(islands, np.float32(1.5), distance)  # the warp may have torn splinters off: one lesion stays


def _place_lesion(canvas: Canvas, distance: Field, benign: bool, echo: Field, rng: np.random.Generator) -> Field:
    """Put the lesion's own decibels into `echo`, with a bright capsule or halo; gives its cover, 1 inside."""
    soft = rng.uniform(0.02, 0.12) if benign else rng.uniform(0.08, 0.4)
    inside = soft_step(distance, 1 + soft / 2, 1 - soft / 2)
    darker = float(rng.choice([6, 12, 18, 36], p=[0.25, 0.3, 0.25, 0.2])) if benign else rng.uniform(4, 14)
    own = -8 - darker + rng.uniform(1, 4) * canvas.noise(rng, 0.12, 3)
    echo += inside * (own - echo)
    if benign:
        echo += rng.uniform(0, 8) * np.exp(-np.square((distance - 1.03) / 0.05))
    else:
        echo += rng.uniform(0, 7) * soft_step(distance, 1.6, 1.0) * (1 - inside)
    return inside


def _draw_tissue(canvas: Canvas, depth: Field, rng: np.random.Generator) -> tuple[Field, Field]:
    """Decibels of what scatters, and amplitude of the sheets (fasciae, septa) that reflect like mirrors."""
    fat_end, gland_end = rng.uniform(0.1, 0.32), rng.uniform(0.45, 0.85)
    skin = depth - 0.03 - 0.004 * canvas.noise(rng, (2.0, 0.8), 2)
    fat = depth - fat_end - rng.uniform(0.01, 0.05) * canvas.noise(rng, (1.0, 0.5), 3)
    gland = depth - gland_end - rng.uniform(0.01, 0.05) * canvas.noise(rng, (1.0, 0.6), 2)
    soft = rng.uniform(0.01, 0.05)
    in_fat = soft_step(skin, 0.0, 0.01) * soft_step(fat, soft, -soft)
    in_gland = soft_step(fat, -soft, soft) * soft_step(gland, soft, -soft)
    in_muscle = soft_step(gland, -soft, soft)
    fibres = canvas.y + rng.normal(0, 0.15) * canvas.x + 0.03 * canvas.noise(rng, (0.5, 0.7))
    echo = -3 + in_fat * (rng.uniform(-16, -9) + 2 * canvas.noise(rng, (0.15, 0.3), 3))
    echo += in_gland * (rng.uniform(-8, -2) + rng.uniform(3, 6) * canvas.noise(rng, (0.1, 0.25), 3))
    echo += in_muscle * (rng.uniform(-16, -6) + rng.uniform(2, 4) * canvas.noise(rng, (0.05, 0.5), 3))
    echo += rng.uniform(1, 3) * canvas.noise(rng, (0.025, 0.12), 2)
    sheets = np.zeros(canvas.size_hw, np.float32)
    layers = ((in_fat, 1.0, 0.2, 0.8), (in_gland, 0.9, 0.12, 0.4), (in_muscle, 1.2, 0.06, 0.5))
    for where, strength, thick, long in layers:
        crossing = canvas.noise(rng, (thick, long), 2) + fibres / thick * rng.uniform(2, 5)
        line = np.exp(-np.square(np.sin(crossing) / 0.10)) * soft_step(canvas.noise(rng, (0.15, 0.3), 2), -0.3, 1.5)
        sheets += where * strength * rng.uniform(0.4, 1.8) * line
    for border in (skin, fat, gland):
        sheets += rng.uniform(0.3, 1) * np.exp(-np.square(border / 0.005)) * soft_step(canvas.noise(rng, 0.4), -1, 1)
    return echo.astype(np.float32), sheets


def _send_pulse(echo: Field, sheets: Field, rng: np.random.Generator) -> Field:
    """Envelope of what comes back: scatterers and sheets, smeared by a pulse that widens with depth.

    One beam to two columns, and three pulses compounded, as scanners do it to calm the speckle.
    """
    strength, mirrors = 10 ** (echo[:, ::2] / 20), 2 * sheets[:, ::2]
    height = echo.shape[0]
    carrier = np.exp(2j * np.pi * 0.25 * np.arange(height, dtype=np.float32))[:, None].astype(np.complex64)
    depth = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    total = np.zeros_like(strength)
    for _ in range(3):
        waves = (strength * rng.standard_normal(strength.shape, np.float32) + mirrors) * carrier
        near, far = (ndimage.gaussian_filter(waves, (1.3, width)) * (width * 1.3) ** 0.5 for width in (0.8, 2.0))
        total = total + np.abs(near + depth * (far - near))
    return np.asarray(Image.fromarray(total).resize(echo.shape[::-1], Image.Resampling.BICUBIC))


def _screen(canvas: Canvas, envelope: Field, loss: Field, distance: Field, rng: np.random.Generator) -> np.ndarray:
    """Log-compressed grey levels, with a label or the examiner's calipers now and then."""
    span = rng.uniform(38, 52)
    decibel = 20 * np.log10(np.maximum(envelope, 1e-4)) - loss + rng.uniform(-14, -4)
    grey = np.clip(255 * (1 + decibel / span), 0, 255).astype(np.uint8)
    picture = Image.fromarray(grey).filter(ImageFilter.GaussianBlur(0.8))
    pen = ImageDraw.Draw(picture)
    height, width = canvas.size_hw
    if rng.random() < 0.3:
        label = f"{rng.choice(['RT', 'LT'])} {rng.choice(['BREAST', 'AXILLA', f'{rng.integers(1, 13)}H'])} PHANTOM"
        place = (rng.uniform(0, 0.5) * width, rng.uniform(0.7, 0.93) * height)
        pen.text(place, label, fill=220, font=ImageFont.load_default(size=height / 26))
    if rng.random() < 0.2:
        (rows, columns), arm = np.nonzero(distance < 1), 0.012 * height
        for end in (columns.argmin(), columns.argmax(), rows.argmin(), rows.argmax()):
            x, y = float(columns[end]), float(rows[end])
            pen.line([x - arm, y, x + arm, y], fill=230)
            pen.line([x, y - arm, x, y + arm], fill=230)
    return np.array(picture.convert("RGB"))
