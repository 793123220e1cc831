"""Data sets of procedural images with exact masks. A stand-in: no figure on them is a finding."""

import hashlib
from functools import cache, lru_cache, partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from medsam_helpers.data.case import SPLITS, Case, Cases, Dataset
from medsam_helpers.errors import ConfigError
from medsam_helpers.files import atomic_write, cache_dir, new_folder, one_writer

KINDS = ("endoscopy", "ultrasound")


def draw_phantom(kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One phantom with the mask of what is visible of its lesions.

    Args:
        kind: "endoscopy", a colonoscopy with one polyp or two, or "ultrasound", a breast with one lesion.
        rng: source of everything that is drawn; the same state gives the same picture.
    Returns:
        Image (H, W, 3) uint8 and mask (H, W) bool, not square, 360 to 620 pixels wide; 1 % to 50 % is lesion.
    Raises:
        ConfigError: unknown kind.
    """
    _check_kind(kind)
    painter = import_module(f"medsam_helpers.phantoms.{kind}")  # only when something is drawn: most are in the cache
    return getattr(painter, f"draw_{kind}")(rng)


def phantom_dataset(
    kind: str = "endoscopy", n_train: int = 80, n_dev: int = 16, n_val: int = 64, seed: int = 0
) -> Dataset:
    """A data set of phantoms, each drawn when it is first asked for and then kept in the cache folder.

    A case depends on kind, seed, split and its place in the split alone: a larger split begins with the smaller.

    Args:
        kind: see `draw_phantom`.
        n_train, n_dev, n_val: number of cases.
        seed: another seed, another data set.
    Raises:
        ConfigError: unknown kind, or a number is no whole number from 0 up.
    """
    _check_kind(kind)
    for what, number in {"n_train": n_train, "n_dev": n_dev, "n_val": n_val, "seed": seed}.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise ConfigError(f"{what} is {number!r}: use a whole number from 0 up")
    train, dev, val = (
        Cases([f"{kind}-{split}-{index:04d}" for index in range(count)], partial(_load_case, kind, seed, place))
        for place, (split, count) in enumerate(zip(SPLITS[:3], (n_train, n_dev, n_val), strict=True))
    )
    licence = "Apache-2.0, as the code that draws them; no patient is shown"
    return Dataset(f"{kind}-phantoms", train, dev, val, licence, "none: drawn by medsam_helpers")


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise ConfigError(f"phantom kind {kind!r} is unknown: use {' or '.join(map(repr, KINDS))}")


@lru_cache(maxsize=160)  # about 1 MB each
def _load_case(kind: str, seed: int, place: int, name: str) -> Case:
    path = cache_dir() / "phantoms" / _drawing_digest() / str(seed) / f"{name}.png"
    try:
        drawing = np.array(Image.open(path))
    except OSError:  # not drawn yet, or damaged
        rng = np.random.default_rng([seed, place, int(name.rsplit("-", 1)[1])])
        image, mask = draw_phantom(kind, rng)
        drawing = np.dstack([image, mask * np.uint8(255)])  # (H, W, 4): the mask is the fourth channel
        with atomic_write(path) as temporary:
            Image.fromarray(drawing).save(temporary, compress_level=1)
    image, mask = np.ascontiguousarray(drawing[..., :3]), drawing[..., 3] > 0
    image.flags.writeable = mask.flags.writeable = False  # the case is shared by all who ask for it
    return Case(name, image, mask)


@cache
def _drawing_digest() -> str:
    """Changes with the code that draws, and with the libraries that it draws with."""
    sources = (path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    libraries = (f"{name} {version(name)}".encode() for name in ("numpy", "scipy", "pillow"))
    return hashlib.sha256(b"".join((*sources, *libraries))).hexdigest()[:16]


@one_writer
def save_folder(dataset: Dataset, output: str | Path, *, show_progress: bool = True) -> None:
    """Write a data set in the folder layout: `images/` and `masks/` as PNG, `train.txt`, `val.txt`, `dev.txt` if any.

    Args:
        dataset: any data set, not only phantoms.
        output: folder that is made, whole or not at all.
    Raises:
        ConfigError: the folder holds something already.
    """
    lists = {split: cases.names for split, cases in dataset.splits.items() if len(cases) or split != "dev"}
    count = sum(map(len, lists.values()))
    cases = (case for split in dataset.splits.values() for case in split)
    with new_folder(Path(output)) as folder:
        for part in ("images", "masks"):
            (folder / part).mkdir()
        for case in tqdm(cases, "save", count, unit="case", disable=not show_progress):
            Image.fromarray(case.image).save(folder / "images" / f"{case.name}.png")
            Image.fromarray(case.mask).save(folder / "masks" / f"{case.name}.png")
        for split, names in lists.items():
            (folder / f"{split}.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
