"""Draws one colonoscopy phantom: a folded wall, lesions that rise from it, vessels, a lamp beside the lens, the recorder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from medsam_helpers.data.phantoms_recorder import draw_bubbles, draw_instrument, draw_recorder
from medsam_helpers.data.phantoms_texture import Canvas, Field, ellipse_distance, smooth_union, soft_step, wavy

# What multiplies the mucosa's red, green and blue on a lesion.
TINTS = {"red": (1.06, 0.82, 0.84), "pale": (1.08, 1.10, 1.15), "same": (1.0, 1.0, 1.0), "dark": (0.85, 0.72, 0.78)}


def draw_endoscopy(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One image (H, W, 3) uint8 with the mask (H, W) bool of what is visible of its lesions."""
    canvas = Canvas.of_width(int(rng.uniform(380, 660)), rng.choice([1.06, 1.14, 1.17, 1.25], p=[0.15, 0.3, 0.4, 0.15]))
    view, finish = draw_recorder(canvas, rng)
    tool, tool_colour = draw_instrument(canvas, rng)
    lesion = _draw_lesion(canvas, view & (tool < 0.5), rng)
    wall = _draw_wall(canvas, lesion, rng)
    if wall.curtain is not None:
        _hide_behind(wall.curtain, lesion)
    rgb = _light(canvas, wall, lesion, _pigment(canvas, lesion, rng), rng)
    draw_bubbles(canvas, rgb, rng)
    rgb += tool * (tool_colour - rgb)
    return finish(rgb), lesion.mask


@dataclass
class Lesion:
    """Where the lesions are and how they differ from the wall. `clear` runs from 0 (hardly visible) to 1."""

    mask: np.ndarray  # (H, W) bool, what is visible
    cover: Field  # 1 on the lesion, 0 off it, with the softness of its edge
    head: Field  # the same without the stalk
    height: Field  # above the wall
    firm: Field  # how clearly it stands out, place by place
    kind: str
    clear: float


def _draw_lesion(canvas: Canvas, visible: np.ndarray, rng: np.random.Generator) -> Lesion:
    area = float(np.clip(np.exp(rng.normal(np.log(0.13), 1.0)), 0.012, 0.5))
    kind = str(rng.choice(["sessile", "pedunculated", "flat"], p=[0.5, 0.25, 0.25]))
    clear = float(rng.beta(1.7, 1.2)) * (0.6 if kind == "flat" else 1)
    size = float(np.sqrt(area))
    warp = rng.uniform(0, 0.35) * 0.2 * size
    x = canvas.x + warp * canvas.noise(rng, 0.4 * size)
    y = canvas.y + warp * canvas.noise(rng, 0.4 * size)
    centres = [rng.uniform(-0.7, 0.7, 2)]
    if area < 0.1 and rng.random() < 0.2:
        turn = rng.uniform(0, 2 * np.pi)
        centres.append(-0.5 * centres[0] + 0.3 * np.array([np.cos(turn), np.sin(turn)]))
    heads, stalks = [], []
    for centre in centres:
        heads.append(_head(x, y, centre, size * rng.uniform(0.7, 1), rng))
        if kind == "pedunculated":
            stalks += _stalk(x, y, centre, size, rng)
    head = np.minimum.reduce(heads)
    whole = smooth_union([head, *stalks], 12) if stalks else head
    # All distances grow from the centres in proportion, so dividing them by one level sets the visible area exactly.
    level = float(np.quantile(whole[visible][::7], min(area * visible.size / visible.sum(), 0.7)))
    whole, head = whole / level, head / level
    # Most polyps stand out on one side and pass into the mucosa on another.
    firm = clear * soft_step(canvas.noise(rng, 1.3 * size), -1.8, rng.uniform(-1.3, 0.5))
    soft = 0.02 + 0.35 * np.square(1 - firm)
    round_top = np.maximum(1 - np.square(whole), 0)
    dome = np.minimum(2 * round_top, 1) ** 1.5 * 0.3 if kind == "flat" else round_top ** (1.2 - 0.7 * firm)
    lumps = 1 + rng.uniform(0.0, 0.12) * canvas.noise(rng, 0.35 * size)
    return Lesion(
        mask=(whole < 1) & visible,
        cover=soft_step(whole, 1 + soft / 2, 1 - soft / 2),
        firm=firm,
        head=soft_step(head, 1 + soft, 1 - soft),
        height=dome * lumps * (level * size * rng.uniform(0.5, 1.0) * (0.2 + 0.8 * clear)),
        kind=kind,
        clear=clear,
    )


def _head(x: Field, y: Field, centre: np.ndarray, size: float, rng: np.random.Generator) -> Field:
    """Distance to a head of one to four lobes."""
    lobes = [ellipse_distance(x, y, centre, (size, size * rng.uniform(0.55, 1)), rng.uniform(0, np.pi))]
    for _ in range(rng.choice([0, 0, 1, 2, 3])):
        turn, share = rng.uniform(0, 2 * np.pi), size * rng.uniform(0.4, 0.75)
        offset = size * rng.uniform(0.5, 0.95) * np.array([np.cos(turn), np.sin(turn)])
        lobes.append(ellipse_distance(x, y, centre + offset, (share, share * rng.uniform(0.7, 1)), turn))
    return wavy(smooth_union(lobes), x, y, centre, rng.uniform(0.01, 0.09), rng)


def _stalk(x: Field, y: Field, centre: np.ndarray, size: float, rng: np.random.Generator) -> list[Field]:
    """Distances to discs along a bent path that leaves the head and widens toward its root."""
    turn, bend, thick = rng.uniform(0, 2 * np.pi), rng.normal(0, 0.15), size * rng.uniform(0.3, 0.5)
    discs, point = [], centre
    for step in range(6):
        point = point + 0.36 * size * np.array([np.cos(turn), np.sin(turn)])
        turn += bend
        radius = thick * (1 + 0.02 * step**2)
        discs.append(ellipse_distance(x, y, point, (radius, radius), 0))
    return discs


@dataclass
class Wall:
    """The bowel behind the lesions."""

    shade: Field  # light that it sends back, 1 in a well lit place
    relief: Field  # undulation toward the lens
    curtain: Field | None  # positive on a fold that has no gaps, negative behind it


def _draw_wall(canvas: Canvas, lesion: Lesion, rng: np.random.Generator) -> Wall:
    """Folds are rims round the lumen, each in front of the next; a lumen far outside the picture gives a plain wall."""
    lumen_seen = rng.random() < 0.4
    reach, turn = rng.uniform(0, 0.7) if lumen_seen else rng.uniform(1.2, 2.5), rng.uniform(0, 2 * np.pi)
    lumen, drift = reach * np.array([np.cos(turn), np.sin(turn)]), rng.normal(0, 0.12, 2)
    warp = np.exp(0.15 * canvas.noise(rng, 0.8))
    radius = ellipse_distance(canvas.x, canvas.y, lumen, (1, 1), 0) * warp
    shade = ((radius + 0.1) / (radius + rng.uniform(0.3, 0.9))) ** rng.uniform(0.8, 1.8)
    curtain = None
    calm = 1 - lesion.cover * soft_step(lesion.firm, 0.6, 0.2)  # what is hardly raised shows no fold through it
    rim_at = (reach + 1) * rng.uniform(0.6, 0.95)
    for index in range(rng.integers(2, 5) if lumen_seen else rng.integers(1, 5)):
        radii = rim_at * np.array([1, rng.uniform(0.65, 1)])
        rim = ellipse_distance(canvas.x, canvas.y, lumen, radii, rng.uniform(0, np.pi)) * warp
        rim += rng.uniform(0.03, 0.12) * canvas.noise(rng, rng.uniform(0.5, 1.0))
        front = (rim - 1) * rim_at  # positive on the side of the lens
        present = soft_step(canvas.noise(rng, 0.9), -0.9, 0.5) * calm
        if index == 0 and lesion.clear > 0.5 and rng.random() < 0.4:
            present, curtain = np.float32(1), front
        crest = np.exp(-np.maximum(front, 0) / rng.uniform(0.1, 0.3)) * rng.uniform(0.1, 0.5)
        crest -= np.exp(-np.square(front / rng.uniform(0.015, 0.05))) * rng.uniform(0.1, 0.4)
        pocket = np.exp(np.minimum(front, 0) / rng.uniform(0.08, 0.5)) * rng.uniform(0.3, 0.75)
        edge = soft_step(front, -0.006, rng.uniform(0.006, 0.03))
        shade *= 1 + present * (edge * crest - (1 - edge) * pocket)
        rim_at *= rng.uniform(0.5, 0.75)
        lumen = lumen + drift * rim_at
    for near, most in ((0.3, 0.4), (1.2, 1.8)):  # the lamp's beam, and a part of the wall so near that it burns out
        turn = rng.uniform(0, 2 * np.pi)
        centre = near * np.array([np.cos(turn), np.sin(turn)])
        spot = ellipse_distance(canvas.x, canvas.y, centre, (rng.uniform(0.2, 0.6), rng.uniform(0.5, 1.2)), turn)
        shade *= 1 + rng.uniform(0, most) * np.exp(-np.square(spot))
    shade *= rng.uniform(1.0, 1.3) * np.exp(rng.uniform(0.05, 0.2) * canvas.noise(rng, 0.6))
    return Wall(shade, rng.uniform(0.02, 0.05) * canvas.noise(rng, 0.4, 2), curtain)


def _hide_behind(curtain: Field, lesion: Lesion) -> None:
    """Let a fold that stands before the lesion cover part of it, unless it would cover most."""
    shown = lesion.mask & (curtain < 0)
    if shown.sum() > 0.6 * lesion.mask.sum():
        lesion.mask = shown
        for part in (lesion.cover, lesion.head, lesion.height):
            part *= soft_step(curtain, 0.005, -0.005)


def _pigment(canvas: Canvas, lesion: Lesion, rng: np.random.Generator) -> np.ndarray:
    """(3, H, W) colour of the tissue under white light: mottled mucosa, vessels, the lesion's own tint and grain."""
    warm, pale = rng.normal(0, 1, 2)
    base = np.array([0.80, 0.46 + 0.02 * warm + 0.02 * pale, 0.335 - 0.03 * warm + 0.02 * pale], np.float32)
    blush = canvas.noise(rng, 0.25, 4)
    vessels = _vessels(canvas, rng) * (1 - rng.uniform(0.5, 1) * lesion.cover)
    grain = rng.uniform(0.01, 0.05) * canvas.noise(rng, 0.02) - rng.uniform(0.0, 0.12) * soft_step(canvas.noise(rng, 0.12, 3), -0.5, 2)
    strength = 0.2 + 0.8 * lesion.clear
    tint = (np.array(TINTS[str(rng.choice(list(TINTS), p=[0.4, 0.25, 0.25, 0.1]))]) - 1) * strength
    pigment = np.empty((3, *canvas.size_hw), np.float32)
    for channel, (mottle, blood) in enumerate(((0.015, 0.15), (0.07, 0.55), (0.065, 0.5))):
        factor = (1 - blood * vessels) * (1 + tint[channel] * lesion.head)
        pigment[channel] = base[channel] * factor * (1 + mottle * blush + (channel > 0) * grain * lesion.cover)
    if rng.random() < 0.25:  # mucus and stool
        stain = soft_step(canvas.noise(rng, rng.uniform(0.1, 0.25, 2), 4), 1.0, 2.6) * rng.uniform(0.2, 0.7)
        pigment += stain * (np.array([0.90, 0.58, 0.22], np.float32)[:, None, None] - pigment)
    return pigment


def _vessels(canvas: Canvas, rng: np.random.Generator) -> Field:
    """(H, W) in [0, 1]: vessels as random walks that fork and thin out, seen in patches."""
    sheet = Image.new("L", canvas.size_hw[::-1])
    pen = ImageDraw.Draw(sheet)
    walks = [
        (rng.uniform(0, canvas.size_hw[::-1]), rng.uniform(0, 2 * np.pi), rng.uniform(1.5, 3.2))
        for _ in range(rng.integers(10, 40))
    ]
    for start, heading, thick in walks:  # grows while it is walked through
        turns = heading + np.cumsum(rng.normal(0, 0.35, int(12 * thick)))
        path = start + 0.03 * canvas.unit * np.cumsum([np.cos(turns), np.sin(turns)], axis=1).T
        pen.line(path.ravel().tolist(), int(50 + 55 * thick), max(1, round(thick * canvas.unit / 280)), joint="curve")
        if thick > 0.9 and len(walks) < 200:
            for fork in np.flatnonzero(rng.random(len(path)) < 0.13):
                walks.append((path[fork], turns[fork] + rng.choice([-0.9, 0.9]), thick * 0.7))
    seen = soft_step(canvas.noise(rng, 0.6), -0.8, 1.0) * rng.uniform(0.1, 1)
    return ndimage.gaussian_filter(np.asarray(sheet, np.float32) / 255, canvas.unit / 280) * seen


def _light(canvas: Canvas, wall: Wall, lesion: Lesion, pigment: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(3, H, W) what the lens sees: pigment times light, burnt out where it is too much, with highlights on wet film."""
    lamp = rng.normal(0, 0.35, 2)
    relief = ndimage.gaussian_filter(lesion.height, 1.5) + wall.relief + rng.uniform(0.0005, 0.002) * canvas.noise(rng, 0.06, 2)
    slope_y, slope_x = np.gradient(relief, 1 / canvas.unit)
    facing = (1 - lamp[0] * slope_x - lamp[1] * slope_y) / np.sqrt(1 + np.square(slope_x) + np.square(slope_y))
    facing = 0.55 + 0.45 * np.clip(facing, -0.4, 1.8)  # light that went through the tissue softens the dark side
    # What rises hides the folds behind it and, nearer the lamp, is brighter; its foot lies in a crease.
    inside = lesion.cover > 0.5
    own = float(np.quantile(wall.shade[inside][::5], 0.6)) if inside.any() else 1.0
    opaque = lesion.cover * np.minimum(1, 0.3 + 1.4 * lesion.firm)
    shade = wall.shade + opaque * (max(own, 0.6) * rng.uniform(1.0, 1.5) - wall.shade)
    blurred = ndimage.gaussian_filter(lesion.cover[::4, ::4], 0.06 * canvas.unit / 4)
    foot = np.asarray(Image.fromarray(blurred).resize(canvas.size_hw[::-1], Image.Resampling.BILINEAR))
    crease = foot * (1 - lesion.cover) * rng.uniform(0, 0.9) * lesion.firm * (lesion.kind != "flat")
    shade = shade * facing * (1 - np.minimum(crease, 0.7)) * (1 + lesion.height) ** 0.7
    rgb = pigment * shade
    rgb += 0.35 * np.maximum(shade - 1.15, 0)

    wet_y, wet_x = np.gradient(relief + 0.02 * canvas.noise(rng, rng.uniform(0.07, 0.14, 2)), 1 / canvas.unit)
    tilt = rng.uniform(0.1, 0.5)
    away = np.square(wet_x + tilt * canvas.x - lamp[0] / 3) + np.square(wet_y + tilt * canvas.y - lamp[1] / 3)
    film = soft_step(canvas.noise(rng, 0.3, 2), rng.uniform(-0.6, 0.5), 1.3) * np.minimum(shade, 1)
    glint = soft_step(np.exp(-away / 0.03) * film, 0.25, 0.5)
    return rgb + glint * (np.array([1.0, 0.98, 0.92], np.float32)[:, None, None] - rgb)
