"""Pictures that show the same thing: saved twice, resized, recompressed, or taken a moment apart."""

import numpy as np
from PIL import Image
from scipy import fft

HASH_DISTANCE = 8  # of 64 bits
NEAR_DUPLICATE = 0.99  # correlation of the thumbnails: the same picture, saved twice or a moment apart
SAME_SCENE = 0.95  # the same lesion a little later; in images that are all alike it may be chance


def thumbnail(image: np.ndarray) -> np.ndarray:
    """The (32, 32) float32 gray values of a small copy of an image (H, W, 3) uint8 RGB."""
    small = Image.fromarray(image).convert("L").resize((32, 32), Image.Resampling.LANCZOS, reducing_gap=2)
    return np.asarray(small, np.float32)


def perceptual_hash(thumbnails: np.ndarray, side: int = 8) -> np.ndarray:
    """(N, side^2) bits of (N, 32, 32) gray values that hardly change with size, compression and brightness.

    They say which of the `side` x `side` lowest frequencies exceed their median.
    Source: Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, thesis, Hagenberg 2010.
    """
    lowest = fft.dctn(thumbnails, axes=(1, 2), norm="ortho")[:, :side, :side].reshape(len(thumbnails), side**2)
    return lowest > np.median(lowest, axis=1, keepdims=True)


def near_duplicates(thumbnails: np.ndarray) -> list[tuple[int, int, float]]:
    """Pairs of pictures that show the same scene: (i, j, correlation of their thumbnails), i < j.

    Their perceptual hashes differ in at most 8 bits, and their thumbnails, (N, 32, 32) gray values, correlate at
    `SAME_SCENE` or more; from `NEAR_DUPLICATE` on it is the same picture. The hash alone also pairs strangers that
    share the black border of an endoscope (178 pairs in the 1000 images of Kvasir-SEG).
    """
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)  # one flat colour correlates with nothing
    signs = np.where(perceptual_hash(thumbnails), 1, -1).astype(np.float32)
    pairs: list[tuple[int, int, float]] = []
    for start in range(0, len(signs), 1024):  # in blocks, so that memory grows with N and not with its square
        agreeing = signs[start : start + 1024] @ signs.T  # 64 - 2 x distance
        first, second = np.nonzero(np.triu(agreeing >= 64 - 2 * HASH_DISTANCE, start + 1))
        first += start
        correlation = np.einsum("nd,nd->n", flat[first], flat[second])
        close = correlation >= SAME_SCENE
        pairs += zip(first[close].tolist(), second[close].tolist(), correlation[close].tolist(), strict=True)
    return pairs
