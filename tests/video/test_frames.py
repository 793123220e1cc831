"""Frames from folders and video files, in their order; and a video written back."""

import sys

import numpy as np
import pytest
from helpers import mask_of
from PIL import Image

from medsam_helpers.data.reading import read_image
from medsam_helpers.errors import ConfigError, DataError
from medsam_helpers.video.frames import frame_files, overlaid, write_video

PICTURE = np.full((40, 61, 3), 90, np.uint8)


def test_a_folder_of_frames_is_read_in_the_order_of_its_numbers(tmp_path):
    for number in (10, 2, 1):
        Image.fromarray(PICTURE).save(tmp_path / f"frame{number}.png")
    assert [file.stem for file in frame_files(tmp_path)] == ["frame1", "frame2", "frame10"]
    Image.fromarray(PICTURE).save(tmp_path / "frame2.jpg")
    with pytest.raises(DataError, match="2 files frame2"):
        frame_files(tmp_path)
    (tmp_path / "frame2.jpg").rename(tmp_path / "frame3.dcm")
    with pytest.raises(DataError, match=r"frame3\.dcm"):
        frame_files(tmp_path)
    with pytest.raises(DataError, match="no frames here"):
        frame_files(tmp_path / "absent")


def test_a_video_file_goes_round_and_is_unpacked_once(tmp_path, cache):
    shades = [40, 120, 200]
    write_video(tmp_path / "out.mp4", (np.full_like(PICTURE, shade) for shade in shades))
    files = frame_files(tmp_path / "out.mp4")
    assert [round(float(read_image(file).mean()), -1) for file in files] == shades
    assert read_image(files[0]).shape == (40, 60, 3)  # an odd column cannot be stored
    files[0].write_bytes(b"")
    assert frame_files(tmp_path / "out.mp4") == files


def test_what_is_no_video_or_cannot_be_read_for_want_of_pyav_is_told_and_leaves_nothing(tmp_path, cache, monkeypatch):
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(DataError, match=r"text\.mp4: cannot be read as a video"):
        frame_files(tmp_path / "text.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError, match="pip install av"):
        frame_files(tmp_path / "text.mp4")
    assert [path.name for path in tmp_path.rglob("*.mp4")] == ["text.mp4"]


def test_a_mask_is_tinted_and_outlined():
    mask = mask_of((40, 61), (10, 20, 10, 20))
    shown = overlaid(PICTURE, mask)
    assert (shown[0, 0] == PICTURE[0, 0]).all()
    assert (PICTURE[15, 15].sum(), shown[15, 15].sum()) < (shown[15, 15].sum(), shown[15, 9].sum())
