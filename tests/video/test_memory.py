"""SAM 2's memory behind the same interface, on random weights: as transformers has it, and on flat memory."""

import numpy as np
import pytest
import torch
from helpers import save_tiny_sam2
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

from medsam_helpers.sam.loading import load_sam, pixel_values
from medsam_helpers.video.memory import MemoryTracker
from medsam_helpers.video.tracking import track

BOX = np.array([10.0, 5, 70, 45])
FRAMES = list(np.random.default_rng(0).integers(0, 255, (9, 60, 90, 3), np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_sam2(tmp_path_factory.mktemp("sam2") / "tiny", num_maskmem=3, max_object_pointers_in_encoder=4)


@pytest.fixture
def tracker(folder):
    found = MemoryTracker(load_sam(folder, memory=True), "cpu")
    with torch.no_grad():  # random weights say that nothing is in sight
        for weight in found.model.mask_decoder.pred_obj_score_head.proj_out.parameters():
            weight.zero_().add_(1.0)
    return found


def by_transformers(tracker, start, prompts, reverse):
    """Low-resolution logits by frame, of the session that keeps everything."""
    video = torch.cat([pixel_values(image, tracker.info) for image in FRAMES])
    session = Sam2VideoInferenceSession(video=video, video_height=60, video_width=90, dtype=torch.float32)
    session.obj_id_to_idx(1)
    transform = tracker.info.transform((60, 90))
    for number, prompt in prompts.items():
        if prompt.dtype == bool:
            session.add_mask_inputs(0, number, transform.mask_to_target(prompt, 128)[None, None])
        else:
            corners = torch.from_numpy(transform.to_model(prompt)).reshape(1, 1, 2, 2)
            session.add_point_inputs(0, number, {"point_coords": corners, "point_labels": torch.tensor([[[2, 3]]])})
        session.obj_with_new_inputs = [1]
        with torch.inference_mode():
            tracker.model(session, frame_idx=number)
    found = tracker.model.propagate_in_video_iterator(session, start_frame_idx=start, reverse=reverse)
    return {one.frame_idx: transform.logits_to_original(one.pred_masks)[0, 0].numpy() > 0 for one in found}


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_masks_are_those_of_transformers_forward_and_backward(tracker, kind):
    prompt = BOX if kind == "box" else np.pad(np.ones((30, 40), bool), ((10, 20), (20, 30)))
    found = dict(track(tracker, FRAMES, {4: prompt}, show_progress=False))
    expected = by_transformers(tracker, 4, {4: prompt}, True) | by_transformers(tracker, 4, {4: prompt}, False)
    assert sorted(found) == sorted(expected) == list(range(9))
    for number, mask in expected.items():
        np.testing.assert_array_equal(found[number].mask, mask)
    assert any(0 < answer.mask.mean() < 1 for answer in found.values())


def test_a_correction_changes_what_comes_after_it(tracker):
    plain, corrected = (
        dict(track(tracker, FRAMES, {0: BOX} | more, show_progress=False)) for more in ({}, {5: BOX + 10})
    )
    same = [np.array_equal(plain[n].mask, corrected[n].mask) for n in range(9)]
    assert all(same[:5])
    assert not any(same[6:])


def test_what_no_later_frame_can_look_at_is_dropped(tracker, monkeypatch):
    seen, forward = [], tracker.model.forward

    def noted(session, **given):
        seen.append((session.num_frames, len(session.output_dict_per_obj[0]["non_cond_frame_outputs"])))
        return forward(session, **given)

    monkeypatch.setattr(tracker.model, "forward", noted)
    list(track(tracker, FRAMES, {0: BOX}, show_progress=False))
    assert seen == [(None, 0), (0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (0, 4), (0, 4), (0, 4)]


def test_without_a_lesion_in_sight_the_mask_is_empty(folder):
    tracker = MemoryTracker(load_sam(folder, memory=True), "cpu")
    with torch.no_grad():
        for weight in tracker.model.mask_decoder.pred_obj_score_head.proj_out.parameters():
            weight.zero_().sub_(1.0)
    found = dict(track(tracker, FRAMES[:3], {0: BOX}, show_progress=False))
    assert not any(answer.mask.any() for answer in found.values())
    assert all(answer.score < 0 for answer in found.values())
