"""The frames of a video: read from a folder or unpacked from a file, and written back with the masks over them."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from scipy import ndimage
from tqdm.auto import tqdm

from medsam_helpers.data.case import Finding
from medsam_helpers.data.pairing import files_by_stem
from medsam_helpers.errors import ConfigError, DataError, some
from medsam_helpers.figures.cases import COLORS
from medsam_helpers.files import atomic_write, cache_dir, new_folder
from medsam_helpers.sam.checkpoints import sha256_of


def frame_files(source: str | Path) -> list[Path]:
    """The picture files of a video's frames in their order, "frame 2" before "frame 10".

    Args:
        source: a folder of pictures, or a video file, which PyAV unpacks once into the cache, as PNG.
    Raises:
        DataError: no such place, no frame in it, a file that is no frame, or a video that cannot be decoded.
        ConfigError: a video file, and PyAV is not installed.
    """
    source = Path(source).expanduser()
    if source.is_file():
        return sorted(_unpacked(source).iterdir())
    others: list[Finding] = []
    found = files_by_stem(source, others) if source.is_dir() else {}
    twice = [f"{len(files)} files {stem}" for stem, files in found.items() if len(files) > 1]
    if wrong := [*(other.detail for other in others), *twice]:
        raise DataError(f"{source}: not a frame a file: {some(wrong)}")
    if not found:
        raise DataError(f"{source}: no frames here: pass a folder of pictures, or a video file")
    return sorted((file for (file,) in found.values()), key=_in_order)


def _in_order(file: Path) -> list[Any]:
    return [int(part) if part.isdigit() else part for part in re.split("([0-9]+)", file.name)]


def _av(purpose: str) -> Any:
    try:
        import av
    except ImportError:
        raise ConfigError(f"{purpose} needs PyAV: pip install av, or use a folder of pictures") from None
    return av


def _unpacked(video: Path) -> Path:
    """The folder of the frames of a video file, unpacked where that was not done before."""
    av = _av(f"reading {video}")
    folder = cache_dir() / "frames" / sha256_of(video)[:16]
    if not folder.exists():
        with new_folder(folder) as part:
            try:
                with av.open(str(video)) as container:
                    for number, frame in enumerate(tqdm(container.decode(video=0), "unpack", unit="frame")):
                        frame.to_image().save(part / f"{number:06d}.png", compress_level=1)
            except (av.FFmpegError, IndexError) as error:
                raise DataError(f"{video}: cannot be read as a video: {error}") from error
            if not any(part.iterdir()):
                raise DataError(f"{video}: holds no frame")
    return folder


def overlaid(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 the image with a mask (H, W) bool tinted and outlined."""
    color, shown = 255 * np.array(to_rgb(COLORS["prediction"])), image.copy()
    shown[mask] = 0.75 * image[mask] + 0.25 * color
    shown[ndimage.binary_dilation(mask, iterations=2) & ~mask] = color
    return shown


def write_video(path: Path, frames: Iterable[np.ndarray], rate: int = 10) -> None:
    """Write frames (H, W, 3) uint8 of one size as .mp4; `ConfigError`: PyAV is not installed."""
    av = _av(f"writing {path}")
    with atomic_write(path) as temporary, av.open(str(temporary), "w") as container:
        stream: Any = None
        for image in frames:
            even = image[: len(image) // 2 * 2, : image.shape[1] // 2 * 2]  # the format stores colours in pairs
            if stream is None:
                stream = container.add_stream("libx264", rate, width=even.shape[1], height=even.shape[0])
                stream.pix_fmt = "yuv420p"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(even)))
        container.mux(stream.encode() if stream else [])
