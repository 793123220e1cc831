"""Draws one colonoscopy phantom: a folded wall with vessels, lesions that rise from it, a lamp beside the lens."""

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from medsam_helpers.phantoms.polyps import Polyps, draw_polyps, hide_behind
from medsam_helpers.phantoms.recorder import draw_bubbles, draw_instrument, draw_recorder
from medsam_helpers.phantoms.texture import Canvas, Field, ellipse_distance, heading, soft_step

# What multiplies the mucosa's red, green and blue on a lesion, and how often.
_TINTS = ((1.06, 0.82, 0.84), (1.08, 1.10, 1.15), (1.0, 1.0, 1.0), (0.85, 0.72, 0.78))
_TINT_SHARES = (0.4, 0.25, 0.25, 0.1)
# Red, green and blue: the mucosa, how far it varies, how much of each its blood takes away.
_MUCOSA, _MOTTLE, _BLOOD = (0.80, 0.46, 0.335), (0.02, 0.08, 0.07), (0.15, 0.55, 0.5)
_STOOL, _HIGHLIGHT = np.array([(0.90, 0.58, 0.22), (1.0, 0.98, 0.92)], np.float32)[..., None, None]


def draw_endoscopy(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One image (H, W, 3) uint8 with the mask (H, W) bool of what is visible of its lesions."""
    canvas = Canvas(int(rng.uniform(360, 620)), rng.choice([1.06, 1.14, 1.17, 1.25], p=[0.15, 0.3, 0.4, 0.15]))
    view, finish = draw_recorder(canvas, rng)
    tool, tool_colour = draw_instrument(canvas, rng)
    polyps = draw_polyps(canvas, view & (tool < 0.5), rng)
    wall, relief, curtain = _draw_wall(canvas, polyps, rng)
    if curtain is not None:
        hide_behind(curtain, polyps)
    rgb = _light(canvas, wall, relief, polyps, _pigment(canvas, polyps, rng), rng)
    draw_bubbles(canvas, rgb, rng)
    rgb += tool * (tool_colour - rgb)
    return finish(rgb), polyps.mask


def _draw_wall(canvas: Canvas, polyps: Polyps, rng: np.random.Generator) -> tuple[Field, Field, Field | None]:
    """The bowel behind the lesions: shade (1 in a well lit place), relief toward the lens, and perhaps a curtain.

    Folds are rims round the lumen, each in front of the next; a lumen far outside the picture gives a plain wall. The
    curtain is positive on a fold that has no gaps, negative behind it.
    """
    lumen_seen = rng.random() < 0.4
    reach, turn = rng.uniform(0, 0.7) if lumen_seen else rng.uniform(1.2, 2.5), rng.uniform(0, 2 * np.pi)
    lumen, drift = reach * heading(turn), rng.normal(0, 0.12, 2)
    warp = np.exp(0.15 * canvas.noise(rng, 0.8))
    radius = ellipse_distance(canvas.x, canvas.y, lumen, (1, 1)) * warp
    shade = ((radius + 0.1) / (radius + rng.uniform(0.3, 0.9))) ** rng.uniform(0.8, 1.8)
    curtain = None
    calm = 1 - polyps.cover * soft_step(polyps.firm, 0.6, 0.2)  # what is hardly raised shows no fold through it
    rim_at = (reach + 1) * rng.uniform(0.6, 0.95)
    for index in range(rng.integers(2, 6) if lumen_seen else rng.integers(1, 6)):
        radii = (rim_at, rim_at * rng.uniform(0.65, 1))
        rim = ellipse_distance(canvas.x, canvas.y, lumen, radii, rng.uniform(0, np.pi)) * warp
        rim += rng.uniform(0.03, 0.12) * canvas.noise(rng, rng.uniform(0.5, 1.0))
        front = (rim - 1) * rim_at  # positive on the side of the lens
        present = soft_step(canvas.noise(rng, 0.9), -0.9, 0.5) * calm
        if index == 0 and polyps.clear > 0.5 and rng.random() < 0.4:
            present, curtain = np.ones_like(front), front
        crest = np.exp(-np.maximum(front, 0) / rng.uniform(0.1, 0.3)) * rng.uniform(0.2, 0.6)
        crest -= np.exp(-np.square(front / rng.uniform(0.015, 0.05))) * rng.uniform(0.1, 0.4)
        pocket = np.exp(np.minimum(front, 0) / rng.uniform(0.08, 0.5)) * rng.uniform(0.3, 0.75)
        edge = soft_step(front, -0.006, rng.uniform(0.006, 0.03))
        shade *= 1 + present * (edge * crest - (1 - edge) * pocket)
        rim_at *= rng.uniform(0.5, 0.85)
        lumen = lumen + drift * rim_at
    for near, most in ((0.3, 0.4), (1.2, 1.8)):  # the lamp's beam, and a part of the wall so near that it burns out
        turn = rng.uniform(0, 2 * np.pi)
        radii = (rng.uniform(0.2, 0.6), rng.uniform(0.5, 1.2))
        spot = ellipse_distance(canvas.x, canvas.y, near * heading(turn), radii, turn)
        shade *= 1 + rng.uniform(0, most) * np.exp(-np.square(spot))
    shade *= rng.uniform(1.05, 1.35) * np.exp(rng.uniform(0.05, 0.2) * canvas.noise(rng, 0.6))
    return shade, rng.uniform(0.03, 0.07) * canvas.noise(rng, 0.4, 2), curtain


def _pigment(canvas: Canvas, polyps: Polyps, rng: np.random.Generator) -> np.ndarray:
    """(3, H, W) colour of the tissue under white light: mottled mucosa, vessels, the lesion's own tint and grain."""
    warm, pale = rng.normal(0, 1, 2)
    base = np.array(_MUCOSA) + 0.02 * pale * np.array([0, 1, 1]) + warm * np.array([0, 0.02, -0.03])
    tint = 1 + (np.array(_TINTS[rng.choice(len(_TINTS), p=_TINT_SHARES)]) - 1) * (0.3 + 0.8 * polyps.clear)
    blush = canvas.noise(rng, 0.25, 4)
    vessels = _vessels(canvas, rng) * (1 - rng.uniform(0.5, 1) * polyps.cover)
    grain = rng.uniform(0.01, 0.05) * canvas.noise(rng, 0.02)
    grain -= rng.uniform(0.0, 0.12) * soft_step(canvas.noise(rng, 0.12, 3), -0.5, 2)
    grain *= polyps.cover
    pigment = np.empty((3, *canvas.size_hw), np.float32)
    for channel, (mottle, blood) in enumerate(zip(_MOTTLE, _BLOOD, strict=True)):
        pigment[channel] = float(base[channel]) * (1 - blood * vessels) * (1 + mottle * blush)
        pigment[channel] *= (1 + float(tint[channel] - 1) * polyps.head) * (1 + (channel > 0) * grain)
    if rng.random() < 0.25:
        dirt = soft_step(canvas.noise(rng, rng.uniform(0.1, 0.25, 2), 4), 1.0, 2.6) * rng.uniform(0.2, 0.7)
        pigment += dirt * (_STOOL - pigment)
    return pigment


def _vessels(canvas: Canvas, rng: np.random.Generator) -> Field:
    """(H, W) in [0, 1]: vessels as random walks that fork and thin out, seen in patches."""
    sheet = Image.new("L", canvas.size_hw[::-1])
    pen = ImageDraw.Draw(sheet)
    corner = canvas.size_hw[::-1]
    count = rng.integers(10, 40)
    walks = [(rng.uniform(0, corner), rng.uniform(0, 2 * np.pi), rng.uniform(1.5, 3.2)) for _ in range(count)]
    for start, course, thick in walks:  # grows while it is walked through
        turns = course + np.cumsum(rng.normal(0, 0.35, int(12 * thick)))
        path = start + 0.03 * canvas.unit * np.cumsum([np.cos(turns), np.sin(turns)], axis=1).T
        pen.line(path.ravel().tolist(), int(50 + 55 * thick), max(1, round(thick * canvas.unit / 280)), joint="curve")
        if thick > 0.9 and len(walks) < 200:
            for fork in np.flatnonzero(rng.random(len(path)) < 0.13):
                walks.append((path[fork], turns[fork] + rng.choice([-0.9, 0.9]), thick * 0.7))
    seen = soft_step(canvas.noise(rng, 0.6), -0.8, 1.0) * rng.uniform(0.1, 1)
    return ndimage.gaussian_filter(np.asarray(sheet, np.float32) / 255, canvas.unit / 280) * seen


def _light(
    canvas: Canvas, wall: Field, relief: Field, polyps: Polyps, pigment: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """(3, H, W) what the lens sees: pigment times light, burnt out where it is too much, with glints on wet film."""
    lamp_x, lamp_y = rng.normal(0, 0.35, 2).tolist()
    relief = ndimage.gaussian_filter(polyps.height, 0.01 * canvas.unit) + relief
    relief += rng.uniform(0.0005, 0.003) * canvas.noise(rng, 0.08, 2)
    slope_y, slope_x = np.gradient(relief, 1 / canvas.unit)
    facing = (1 - lamp_x * slope_x - lamp_y * slope_y) / np.sqrt(1 + slope_x * slope_x + slope_y * slope_y)
    facing = 0.55 + 0.45 * np.clip(facing, -0.4, 1.8)  # light that went through the tissue softens the dark side
    # What rises hides the folds behind it and, nearer the lamp, is brighter; its foot lies in a crease.
    inside = polyps.cover > 0.5
    own = float(np.quantile(wall[inside][::5], 0.6)) if inside.any() else 1.0
    opaque = polyps.cover * np.minimum(1, 0.5 + polyps.firm)
    shade = wall + opaque * (max(own, 0.6) * rng.uniform(1.0, 1.5) - wall)
    blurred = ndimage.gaussian_filter(polyps.cover[::4, ::4], 0.06 * canvas.unit / 4)
    foot = np.asarray(Image.fromarray(blurred).resize(canvas.size_hw[::-1], Image.Resampling.BILINEAR))
    crease = foot * (1 - polyps.cover) * rng.uniform(0, 0.9) * polyps.firm * (polyps.kind != "flat")
    shade = shade * facing * (1 - np.minimum(crease, 0.7)) * (1 + polyps.height) ** 0.7
    shade *= rng.uniform(0.8, 0.95) / shade.mean()  # the camera's automatic exposure
    rgb = pigment * shade
    rgb += 0.35 * np.maximum(shade - 1.15, 0)

    wet_y, wet_x = np.gradient(0.02 * canvas.noise(rng, rng.uniform(0.07, 0.14, 2)), 1 / canvas.unit)
    tilt = rng.uniform(0.1, 0.5)
    away = np.square(slope_x + wet_x + tilt * canvas.x - lamp_x / 3)
    away += np.square(slope_y + wet_y + tilt * canvas.y - lamp_y / 3)
    film = soft_step(canvas.noise(rng, 0.3, 2), rng.uniform(-0.6, 0.5), 1.3) * np.minimum(shade, 1)
    glint = soft_step(np.exp(-away / 0.03) * film, 0.25, 0.5)
    return rgb + glint * (_HIGHLIGHT - rgb)
