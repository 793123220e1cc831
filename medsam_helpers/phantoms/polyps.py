"""The lesions of a colonoscopy phantom: where they are, how they rise from the wall, how clearly they stand out."""

from dataclasses import dataclass

import numpy as np

from medsam_helpers.phantoms.texture import Canvas, Field, ellipse_distance, heading, lobed_distance, soft_step, union


@dataclass
class Polyps:
    """Where the lesions are and how they differ from the wall. `clear` runs from 0 (hardly visible) to 1."""

    mask: np.ndarray  # (H, W) bool, what is visible
    cover: Field  # 1 on the lesion, 0 off it, with the softness of its edge
    head: Field  # the same without the stalk
    height: Field  # above the wall
    firm: Field  # how clearly it stands out, place by place
    kind: str
    clear: float


def draw_polyps(canvas: Canvas, visible: np.ndarray, rng: np.random.Generator) -> Polyps:
    """One or two polyps, sessile, stalked or flat, of which a share of the `visible` (H, W) bool pixels is covered."""
    area = float(np.clip(np.exp(rng.normal(np.log(0.13), 1.0)), 0.018, 0.48))
    kind = str(rng.choice(["sessile", "pedunculated", "flat"], p=[0.45, 0.3, 0.25]))
    clear = (0.1 + 0.85 * rng.beta(1.4, 1.3)) * (0.6 if kind == "flat" else 1)
    size = float(np.sqrt(area))
    warp = rng.uniform(0, 0.35) * 0.2 * size
    x = canvas.x + warp * canvas.noise(rng, 0.4 * size)
    y = canvas.y + warp * canvas.noise(rng, 0.4 * size)
    centres = [rng.uniform(-0.65, 0.65, 2) * (1 - 0.7 * size)]  # what is large is seldom cut off
    if area < 0.1 and rng.random() < 0.2:
        turn = rng.uniform(0, 2 * np.pi)
        centres.append(-0.5 * centres[0] + 0.3 * heading(turn))
    heads, stalks = [], []
    for centre in centres:
        part, lobes, waves = size * rng.uniform(0.7, 1), int(rng.integers(0, 4)), rng.uniform(0.02, 0.11)
        heads.append(lobed_distance(x, y, centre, part, lobes, waves, rng))
        if kind == "pedunculated":
            stalks += _stalk(x, y, centre, size, rng)
    head = np.minimum.reduce(heads)
    whole = union([head, *stalks], 12) if stalks else head
    # Distances grow in proportion from the centres, so dividing them by one level sets the visible area.
    level = float(np.quantile(whole[visible][::7], min(area * visible.size / visible.sum(), 0.7)))
    whole, head = whole / level, head / level
    # Most polyps stand out on one side and pass into the mucosa on another.
    firm = clear * soft_step(canvas.noise(rng, 1.3 * size), -1.8, rng.uniform(-1.3, 1.5))
    soft = 0.03 + 0.6 * np.square(1 - firm)
    round_top = np.maximum(1 - np.square(whole), 0)
    dome = np.minimum(2 * round_top, 1) ** 1.5 * 0.3 if kind == "flat" else round_top ** (1.2 - 0.7 * firm)
    lumps = 1 + rng.uniform(0.0, 0.12) * canvas.noise(rng, 0.35 * size)
    height = dome * lumps * (level * size * rng.uniform(0.5, 1.0) * (0.2 + 0.8 * clear))
    cover, head = (soft_step(part, 1 + soft / 2, 1 - soft / 2) for part in (whole, head))
    return Polyps((whole < 1) & visible, cover, head, height, firm, kind, clear)


def _stalk(x: Field, y: Field, centre: np.ndarray, size: float, rng: np.random.Generator) -> list[Field]:
    """Distances to discs along a bent path that leaves the head and widens toward its root."""
    turn, bend, thick = rng.uniform(0, 2 * np.pi), rng.normal(0, 0.15), size * rng.uniform(0.3, 0.5)
    discs, point = [], centre
    for step in range(6):
        point = point + 0.36 * size * heading(turn)
        turn += bend
        radius = thick * (1 + 0.02 * step**2)
        discs.append(ellipse_distance(x, y, point, (radius, radius)))
    return discs


def hide_behind(curtain: Field, polyps: Polyps) -> None:
    """Let a fold that stands before them cover part of them, unless it would cover most."""
    shown = polyps.mask & (curtain < 0)
    if shown.sum() > 0.6 * polyps.mask.sum():
        polyps.mask = shown
        behind = soft_step(curtain, 0.005, -0.005)
        parts = polyps.cover, polyps.head, polyps.height
        polyps.cover, polyps.head, polyps.height = (part * behind for part in parts)
