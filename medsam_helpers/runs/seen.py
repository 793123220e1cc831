"""Which images a checkpoint has seen: all that it, or what it was trained from, was trained or selected on."""

from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.contrib.concurrent import thread_map

from medsam_helpers.data.case import Cases, Dataset
from medsam_helpers.data.duplicates import perceptual_hash, thumbnail
from medsam_helpers.errors import CheckpointError
from medsam_helpers.files import atomic_write
from medsam_helpers.sam.tuned import SEEN_FILE

_COLUMNS = ["digest", "fingerprint"]


def write_seen(folder: Path, dataset: Dataset, start: Path | None = None) -> None:
    """Write the digests and fingerprints of train and dev, and of all that `start`, the first decoder, has seen.

    No picture can be made of them. A file that is there is kept: a run's images never change. `CheckpointError` where
    `start` does not say what it has seen.
    """
    if (folder / SEEN_FILE).exists():
        return
    rows = [row for cases in (dataset.train, dataset.dev) for row in _prints(cases)]
    table = pd.concat([pd.DataFrame(rows, columns=_COLUMNS), *([read_seen(start)] if start else [])])
    with atomic_write(folder / SEEN_FILE) as temporary:
        table.drop_duplicates().sort_values(_COLUMNS).to_csv(temporary, index=False)


def read_seen(folder: Path) -> pd.DataFrame:
    """Table of `digest` and `fingerprint` of the images a checkpoint has seen; `CheckpointError` if it does not say."""
    try:
        return pd.read_csv(folder / SEEN_FILE, dtype=str, keep_default_na=False)[_COLUMNS]
    except (OSError, ValueError, KeyError) as error:
        reason = f"{folder} does not say which images it was trained on ({SEEN_FILE}: {type(error).__name__})"
        raise CheckpointError(f"{reason}: train it again, its cached embeddings make that quick") from error


def seen_among(cases: Cases, seen: pd.DataFrame) -> list[str]:
    """Names of the cases whose image is among those seen: the same pixels, or nearly the same picture."""
    digests, known = set(seen["digest"]), np.array([_signs(text) for text in seen["fingerprint"]]).reshape(-1, 256)
    named = zip(cases.names, _prints(cases), strict=True)
    least = 256 - 2 * 32  # the product where 32 of 256 bits differ
    return [name for name, (digest, look) in named if digest in digests or (known @ _signs(look) >= least).any()]


def _prints(cases: Cases) -> list[tuple[str, str]]:
    """Digest and fingerprint of each image."""

    def prints(name: str) -> tuple[str, str]:
        case = cases.load(name)
        return case.image_digest, fingerprint(case.image)

    return thread_map(prints, cases.names, disable=True)


def fingerprint(image: np.ndarray) -> str:
    """A perceptual hash of 256 bits, in hexadecimal, of an image (H, W, 3) uint8; empty for one flat colour.

    Saved again (JPEG at 50), halved or made brighter, an image of Kvasir-SEG changes at most 12 bits; its pairs that
    are nearly the same picture differ in up to 18 (BUSI: 22), strangers in 44 or more. Too little to draw it from.
    """
    small = thumbnail(image)
    return np.packbits(perceptual_hash(small[None], 16)).tobytes().hex() if np.ptp(small) > 1 else ""


def _signs(fingerprint: str) -> np.ndarray:
    """(256,) float32: 1 and -1 for its bits; 0, which is like nothing, where it is empty."""
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(fingerprint or "00" * 32), np.uint8))
    return (2.0 * bits - 1).astype(np.float32) * bool(fingerprint)
