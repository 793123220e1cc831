"""The slider through a video: a box on a frame, track, correct, save."""

import numpy as np
import pytest
from helpers import mask_of
from PIL import Image

from medsam_helpers.video.tracking import Tracked
from medsam_helpers.widgets import VideoPrompt

FRAMES = [np.full((60, 100, 3), 10 * number, np.uint8) for number in range(5)]


def shifting(steps):
    """In place of a tracker: the mask goes a pixel to the right each frame."""
    mask = None
    for _, prompt in steps:
        mask = prompt if prompt is not None else np.roll(mask, 1, axis=1)
        yield Tracked(mask, 1.0)


@pytest.fixture
def video(fill, tmp_path):
    return VideoPrompt(FRAMES, fill, shifting, save_to=tmp_path / "saved")


def test_a_box_on_a_frame_gives_masks_on_all_a_correction_from_there_on_and_files(video, tmp_path):
    video.slider.value = 1
    video.canvas.prompt(boxes=[[10, 10, 30, 40]])
    video.buttons["Track"].click()
    assert "5 masks; empty, the lesion lost or out of sight, in 0" in video.canvas.status
    video.slider.value = 3
    np.testing.assert_array_equal(video.canvas.mask, mask_of((60, 100), (10, 40, 12, 32)))
    video.canvas.prompt(boxes=[[50, 10, 70, 40]])
    video.buttons["Track"].click()
    video.slider.value = 4
    np.testing.assert_array_equal(video.canvas.mask, mask_of((60, 100), (10, 40, 51, 71)))
    video.slider.value = 0
    np.testing.assert_array_equal(video.canvas.mask, mask_of((60, 100), (10, 40, 11, 31)))
    video.buttons["Save masks"].click()
    files = sorted((tmp_path / "saved").iterdir())
    assert [file.name for file in files] == [f"{number:06d}.png" for number in range(5)]
    np.testing.assert_array_equal(np.array(Image.open(files[3])) > 0, video.masks[3])
    video.buttons["Save masks"].click()
    assert "is not an empty folder" in video.canvas.status


def test_what_is_asked_too_early_is_told(video):
    for button, told in (("Save masks", "there are no masks to save yet"), ("Track", "give one at least")):
        video.buttons[button].click()
        assert told in video.canvas.status
        assert video.canvas.state == "error"


def test_moving_the_slider_asks_no_model(fill):
    asked = []
    video = VideoPrompt(FRAMES, lambda *given: asked.append(given) or fill(*given), shifting)
    for number in range(5):
        video.slider.value = number
    assert (asked, video.canvas.name) == ([], "frame 4")
