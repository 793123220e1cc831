"""A lesion followed by the box of the mask before: forward, backward, found again, lost, corrected; on flat memory."""

import tracemalloc

import numpy as np
import pytest
import torch
from helpers import mask_of

from medsam_helpers.data.case import Case
from medsam_helpers.errors import DataError, PromptError
from medsam_helpers.evaluation.metrics import dice
from medsam_helpers.geometry import ImageTransform, fill_box
from medsam_helpers.phantoms.video import phantom_video
from medsam_helpers.sam.segmenter import Embedding, Prediction, Segmenter
from medsam_helpers.video.scores import baselines, score_sequence
from medsam_helpers.video.tracking import BoxTracker, track

HW, RED, GREEN, BLUE = (64, 96), (200, 40, 40), (40, 200, 40), (40, 40, 200)
SMALL = np.zeros((5, 4, 3), np.uint8)


class Bright:
    """In place of a SAM: the embedding is the picture in small, the mask what is coloured inside the box."""

    def __init__(self):
        self.refined = []  # of each call the logits that it was given; its own are the number of the call

    def embed(self, image):
        transform = ImageTransform(HW, 64, 32)
        small = np.zeros((64, 64, 3), np.uint8)
        small[: transform.resized_hw[0]] = transform.image_to_model(image)
        features = torch.nn.functional.avg_pool2d(torch.from_numpy(small).permute(2, 0, 1)[None].float(), 2)
        self.image = image
        return Embedding(features, transform)

    def predict(self, view, boxes, mask_logits=None):
        found = [fill_box(box, HW) & (self.image.max(axis=2) > 100) for box in np.atleast_2d(boxes)]
        self.refined.append(None if mask_logits is None else int(mask_logits.unique()))
        logits = torch.full((len(found), 1, 32, 32), len(self.refined))
        return Prediction(np.array(found)[:, None], np.ones((len(found), 1)), logits)


def frame(y, x, color=RED, side=16):
    """A gray picture with a square; none where y is None. And the square's mask."""
    image, mask = np.full((*HW, 3), 60, np.uint8), np.zeros(HW, bool)
    if y is not None:
        mask = mask_of(HW, (y, y + side, x, x + side))
        image[mask] = color
    return Case("frame", image, mask)


def follow(frames, prompts, **options):
    return dict(track(BoxTracker(Bright(), **options), frames, prompts, show_progress=False))


def test_a_prompt_in_the_middle_gives_masks_forward_and_backward():
    frames = [frame(20 + n, 10 + 2 * n) for n in range(12)]
    found = follow(frames, {5: np.array([18.0, 23, 38, 43])})
    assert list(found) == [5, 6, 7, 8, 9, 10, 11, 4, 3, 2, 1, 0]
    # Two pixels a frame are more than the margin of a box: some of the square is cut off now and then.
    assert all(dice(found[n].mask, frames[n].mask) > 0.9 for n in range(12))
    assert found[5].score == 1


def test_it_is_found_again_elsewhere_and_what_looks_otherwise_is_not_it():
    frames = [frame(10, 10), frame(10, 12), frame(None, 0), frame(10, 12, GREEN), frame(40, 70), frame(40, 70)]
    found = follow(frames, {0: frames[0].mask})
    assert [bool(found[n].mask.any()) for n in range(6)] == [True, True, False, False, True, True]
    assert dice(found[5].mask, frames[5].mask) > 0.9
    assert found[3].score < 0.25 < found[4].score


def test_the_logits_of_an_answer_are_part_of_the_next_prompt_until_the_lesion_is_lost():
    frames = [frame(10, 10), frame(10, 12), frame(10, 14), frame(None, 0), frame(10, 16)]
    for prompt, first in ((np.array([8.0, 8, 28, 28]), [None, 1, 2, 3, None]), (frames[0].mask, [None, 1, 2, None])):
        model = Bright()
        list(track(BoxTracker(model), frames, {0: prompt}, show_progress=False))
        assert model.refined == first


def test_a_later_prompt_is_a_correction_that_is_followed_from_there():
    frames = [frame(10, 10) for _ in range(3)] + [frame(40, 60, BLUE) for _ in range(3)]
    assert not follow(frames, {0: frames[0].mask})[5].mask.any()
    found = follow(frames, {0: frames[0].mask, 3: np.array([58.0, 38, 80, 60])})
    assert dice(found[2].mask, frames[2].mask) == 1
    assert dice(found[5].mask, frames[5].mask) == 1


@pytest.mark.parametrize(
    ("frames", "prompts", "kind", "told"),
    [
        ([frame(10, 10)], {}, PromptError, "give one at least"),
        ([frame(10, 10)], {1: np.array([8.0, 8, 30, 30])}, PromptError, "frames 0 to 0"),
        ([frame(10, 10)], {0: np.array([60.0, 40, 90, 60])}, PromptError, "empty mask"),
        ([frame(10, 10), SMALL], {0: frame(10, 10).mask}, DataError, "frame 1 is 4 x 5, frame 0"),
    ],
)
def test_what_cannot_be_followed_is_told(frames, prompts, kind, told):
    with pytest.raises(kind, match=told):
        follow(frames, prompts)


def test_a_thousand_frames_take_no_more_memory_than_fifty():
    frames = [frame(20, 10 + number % 40) for number in range(1000)]

    def peak(count):
        tracemalloc.start()
        for _ in track(BoxTracker(Bright()), frames[:count], {0: frames[0].mask}, show_progress=False):
            pass
        return tracemalloc.get_traced_memory()[1], tracemalloc.stop()

    assert (peak(1000)[0] - peak(50)[0]) / 950 < frames[0].mask.nbytes / 10  # of a frame not even its mask is kept


@pytest.mark.slow
def test_a_released_decoder_follows_a_phantom_better_than_what_looks_at_no_frame():
    frames = list(phantom_video(0)[:36:3])
    truths, tracker = [frame.mask for frame in frames], BoxTracker(Segmenter.load("kvasir-polyps", precision="fp32"))
    found = dict(track(tracker, frames, {0: truths[0]}, show_progress=False))
    scores = [score_sequence([mask] * 11, truths[1:])["dice"] for mask in baselines(truths[0]).values()]
    assert score_sequence([found[n].mask for n in range(1, 12)], truths[1:])["dice"] > 0.8 > 0.3 + max(scores)
