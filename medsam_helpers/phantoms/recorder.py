"""What stands between the bowel and the stored picture: bubbles, an instrument, the recorder's border and text."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from medsam_helpers.phantoms.texture import Canvas, Field, ellipse_distance, heading, soft_step


def draw_instrument(canvas: Canvas, rng: np.random.Generator) -> tuple[Field, np.ndarray]:
    """Cover (H, W) and colour (3, H, W) of a catheter that enters from the border; usually there is none."""
    if rng.random() > 0.06:
        return np.zeros(canvas.size_hw, np.float32), np.zeros((3, 1, 1), np.float32)
    course = heading(rng.uniform(0.2, 0.8) * np.pi)  # from below, where the channel opens
    cos, sin = course.tolist()
    tip_x, tip_y = (course * rng.uniform(0.3, 0.8) + rng.uniform(-0.2, 0.2, 2)).tolist()
    radius = rng.uniform(0.05, 0.1)
    along = (canvas.x - tip_x) * cos + (canvas.y - tip_y) * sin
    across = ((canvas.y - tip_y) * cos - (canvas.x - tip_x) * sin) / radius
    shine = 0.8 * np.sqrt(np.clip(1 - across**2, 0, 1)) + 0.6 * np.exp(-np.square((across + 0.3) / 0.15))
    colour = np.array([(0.85, 0.85, 0.8), (0.2, 0.35, 0.6), (0.25, 0.25, 0.27)][rng.integers(3)], np.float32)
    return soft_step(np.abs(across), 1.05, 0.95) * soft_step(along, -0.02, 0.02), colour[:, None, None] * shine


def draw_bubbles(canvas: Canvas, rgb: np.ndarray, rng: np.random.Generator) -> None:
    """Now and then a cluster of bubbles, drawn into `rgb` (3, H, W)."""
    if rng.random() > 0.15:
        return
    middle = rng.uniform(-0.7, 0.7, 2)
    for _ in range(rng.integers(3, 14)):
        centre, radius = middle + rng.normal(0, 0.12, 2), rng.uniform(0.015, 0.06)
        near = np.ix_(np.abs(canvas.y[:, 0] - centre[1]) < 2 * radius, np.abs(canvas.x[0] - centre[0]) < 2 * radius)
        x, y = canvas.x[near], canvas.y[near]
        rim = ellipse_distance(x, y, centre, (radius, radius))
        spark = ellipse_distance(x, y, centre - 0.4 * radius, (radius, radius))
        light = 0.35 * np.exp(-np.square((rim - 0.9) / 0.15)) + 0.8 * np.exp(-np.square(spark / 0.25))
        for plane in rgb:
            plane[near] += np.minimum(light, 1) * (0.95 - plane[near])


def draw_recorder(canvas: Canvas, rng: np.random.Generator) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """The field of view (H, W) bool, and what makes (3, H, W) light into the stored (H, W, 3) uint8 picture."""
    height, width = canvas.size_hw
    cut = rng.uniform(0.18, 0.33) * height
    inset = rng.uniform(0.04, 0.1) * height if rng.random() < 0.12 else 0
    sheet = Image.new("L", (width, height))
    pen = ImageDraw.Draw(sheet)
    ends = ((inset, width - inset), (inset / 2, height - inset / 2))
    xs, ys = ((low, low + cut, high - cut, high) for low, high in ends)
    corners = ((1, 0), (2, 0), (3, 1), (3, 2), (2, 3), (1, 3), (0, 2), (0, 1))
    pen.polygon([(xs[i], ys[j]) for i, j in corners], fill=255)
    box = [0, round(rng.uniform(0.62, 0.75) * height), round(rng.uniform(0.25, 0.4) * width), height]
    if rng.random() < 0.5:
        pen.rectangle(box, fill=0)
    view = np.asarray(sheet) > 127
    date = f"{rng.integers(1, 29):02d}/{rng.integers(1, 13):02d}/20{rng.integers(10, 20)}"
    time = f"{rng.integers(8, 17):02d}:{rng.integers(60):02d}:{rng.integers(60):02d}"
    text = f"Name: PHANTOM\nSex:    Age:\nD.O.B.:\n{date}\n{time}\n\nCVP:5"
    corner = (4, rng.uniform(0.2, 0.3) * height)
    written = rng.random() < 0.8
    sharpen = int(rng.integers(60, 160))
    noise = 0.011 * rng.standard_normal(canvas.size_hw, np.float32)

    def finish(rgb: np.ndarray) -> np.ndarray:
        levels = np.clip((rgb + noise) * 255, 0, 255).astype(np.uint8)
        picture = Image.fromarray(np.ascontiguousarray(levels.transpose(1, 2, 0)))
        picture = picture.filter(ImageFilter.BoxBlur(0.4)).filter(ImageFilter.UnsharpMask(2, sharpen, 0))
        picture = Image.composite(picture, Image.new("RGB", picture.size), sheet)
        if written:
            font = ImageFont.load_default(size=max(9, round(height / 36)))
            ImageDraw.Draw(picture).multiline_text(corner, text, fill=(235, 235, 235), font=font, spacing=4)
        return np.array(picture)

    return view, finish
