"""How near the phantoms are to real images: the same figures for both, in one JSON line.

    python benchmarks/phantom_statistics.py --real ../shared/data/kvasir-seg --kind endoscopy --count 120

Each figure comes as [25 %, 50 %, 75 %, mean] over the cases. Every image is first brought to a long side of 512, so
that lengths and gradients compare; grey levels run from 0 to 255. In endoscopy, what is black (the corners of the field
of view, the recorder's box) is left out of all figures but the areas.
"""

import argparse
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from medsam_helpers.data.case import Case
from medsam_helpers.data.folder import folder_source
from medsam_helpers.data.sources import Selection
from medsam_helpers.errors import MedsamError
from medsam_helpers.phantoms.dataset import KINDS, phantom_dataset

LONG_SIDE = 512
RING = 8  # width in pixels of the rings inside and outside the contour
BLACK = 24  # a pixel with no channel above this is outside the field of view


def real_cases(folder: Path, count: int, seed: int) -> Iterator[Case]:
    """A seeded choice of the folder's cases."""
    source = folder_source(folder, Selection())
    for name in random.Random(seed).sample(source.names, min(count, len(source.names))):
        yield source.load(name)


def measure(case: Case, has_black_border: bool) -> dict[str, float]:
    """The figures of one case."""
    size = [round(side * LONG_SIDE / max(case.size_hw)) for side in reversed(case.size_hw)]
    rgb = np.asarray(Image.fromarray(case.image).resize(size, Image.Resampling.LANCZOS), np.float32)
    mask = Image.fromarray(case.mask).convert("L")
    lesion = np.asarray(mask.resize(size, Image.Resampling.BILINEAR)) > 127
    seen = np.ones(lesion.shape, bool)
    if has_black_border:
        seen = ndimage.binary_erosion(ndimage.binary_opening(rgb.max(axis=2) > BLACK, iterations=2), iterations=3)

    distance = ndimage.distance_transform_edt(lesion) - ndimage.distance_transform_edt(~lesion)
    inner = (distance > 1) & (distance <= 1 + RING) & seen
    outer = (distance < -1) & (distance >= -1 - RING) & seen
    step = rgb[inner].mean(axis=0) - rgb[outer].mean(axis=0) if inner.any() and outer.any() else np.full(3, np.nan)
    gray = rgb.mean(axis=2)
    smooth = [ndimage.gaussian_filter(gray, 1.5, order=order) for order in ((1, 0), (0, 1))]
    # The perimeter of a shape is the total variation of its smoothed indicator: no staircase to correct for.
    normal = [ndimage.gaussian_filter(lesion.astype(np.float32), 1.5, order=order) for order in ((1, 0), (0, 1))]
    steepness = np.hypot(*normal)
    across = np.abs(smooth[0] * normal[0] + smooth[1] * normal[1]) / np.maximum(steepness, 1e-6)
    contour = (np.abs(distance) <= 1.5) & seen
    ys, xs = np.nonzero(lesion)
    height, width = np.ptp(ys) + 1, np.ptp(xs) + 1
    y, x = np.ogrid[: lesion.shape[0], : lesion.shape[1]]
    ellipse = ((y - ys.min() + 0.5 - height / 2) / height) ** 2 + (
        (x - xs.min() + 0.5 - width / 2) / width
    ) ** 2 <= 0.25
    labels, count = ndimage.label(lesion)
    figures = {
        "width_over_height": size[0] / size[1],
        "field_of_view_share": seen.mean(),
        "area_percent": 100 * lesion.mean(),
        "lesions": sum(np.bincount(labels.ravel())[1:] >= 1e-4 * lesion.size) if count else 0,
        "circularity": 4 * np.pi * lesion.sum() / steepness.sum() ** 2,
        "dice_of_box": 2 * lesion.sum() / (lesion.sum() + height * width),
        "dice_of_ellipse": 2 * (lesion & ellipse).sum() / (lesion.sum() + ellipse.sum()),
        "contrast_at_edge": np.linalg.norm(step),
        "brighter_inside": step.mean(),
        "edge_sharpness": across[contour].mean(),
        "edge_sharpness_over_elsewhere": across[contour].mean() / np.hypot(*smooth)[seen].mean(),
        "image_sharpness": np.abs(ndimage.laplace(gray))[seen].mean(),
        "brightness_spread": gray[seen].std(),
        "highlight_percent": 100 * (rgb.min(axis=2)[seen] > 230).mean(),
    }
    figures |= {f"mean_{name}": rgb[seen, channel].mean() for channel, name in enumerate(("red", "green", "blue"))}
    figures |= {f"lesion_{name}": rgb[lesion, channel].mean() for channel, name in enumerate(("red", "green", "blue"))}
    return {name: float(value) for name, value in figures.items()}


def summary(cases: Iterator[Case], has_black_border: bool) -> dict[str, list[float]]:
    """Quartiles and mean of every figure; a lesion that fills the view has no ring, so no contrast, and counts not."""
    rows = [measure(case, has_black_border) for case in cases]
    table = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return {
        name: [float(f"{value:.3g}") for value in (*np.nanpercentile(column, (25, 50, 75)), np.nanmean(column))]
        for name, column in table.items()
    }


def main() -> None:
    """Read the arguments, print the line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", type=Path, required=True, help="folder with images/ and masks/")
    parser.add_argument("--kind", choices=KINDS, default="endoscopy")
    parser.add_argument("--count", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    has_black_border = args.kind == "endoscopy"
    real = summary(real_cases(args.real, args.count, args.seed), has_black_border)
    phantoms = phantom_dataset(args.kind, args.count, 0, 0, args.seed).train
    phantom = summary(iter(phantoms), has_black_border)
    print(json.dumps({name: {"real": real[name], "phantom": phantom[name]} for name in real}))


if __name__ == "__main__":
    try:
        main()
    except MedsamError as error:
        sys.exit(str(error))
