"""`MemoryTracker`: SAM 2's video model, which looks back at what it saw and answered before."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from transformers import Sam2VideoModel
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

from medsam_helpers.device import default_device
from medsam_helpers.errors import ConfigError
from medsam_helpers.geometry import check_boxes
from medsam_helpers.sam.loading import model_info, pixel_values
from medsam_helpers.video.tracking import Steps, Tracked

_BOX = torch.tensor([[[2, 3]]])  # the labels of its corners, as the prompt encoder knows them


class MemoryTracker:
    """Follows a lesion with SAM 2's memory: attention to earlier frames with their masks, and to the prompted ones.

    It says by itself whether the lesion is in sight. Memories that no later frame can look at are dropped, so that a
    long video takes no more room than a short one; `transformers`' own session keeps them all.

    Args:
        model: of `load_sam(NAME, memory=True)`.
        device: default: the best there is.
    Raises:
        ConfigError: the model has no memory.
    Source: Ravi et al., SAM 2: Segment Anything in Images and Videos, ICLR 2025; arXiv 2408.00714.
    """

    def __init__(self, model: Any, device: str | torch.device | None = None) -> None:
        if not isinstance(model, Sam2VideoModel):
            raise ConfigError(
                "this model has no memory: load a SAM 2 with it, load_sam('sam2-hiera-tiny', memory=True)"
            )
        self.device = torch.device(device) if device else default_device()
        self.model: Any = model.to(self.device).eval()  # type: ignore[arg-type]
        self.info = model_info(model)  # type: ignore[arg-type]

    @torch.inference_mode()
    def __call__(self, steps: Steps) -> Iterator[Tracked]:
        """See `Tracker`; the score is the logit of the lesion being in sight, and below 0 the mask is empty."""
        places: Any = dict.fromkeys(("inference_device", "inference_state_device", "video_storage_device"), self.device)
        session: Any = Sam2VideoInferenceSession(**places, dtype=torch.float32)
        index = session.obj_id_to_idx(1)
        kept = max(self.model.config.num_maskmem, self.model.config.max_object_pointers_in_encoder)
        for step, (image, prompt) in enumerate(steps):
            transform = self.info.transform(image.shape[:2])
            if prompt is not None:
                if prompt.dtype == np.bool_:
                    drawn = transform.mask_to_target(prompt, self.info.model_size)
                    session.add_mask_inputs(index, step, drawn[None, None])
                else:
                    corners = transform.to_model(check_boxes(prompt, image.shape[:2])).reshape(1, 1, 2, 2)
                    given = {"point_coords": torch.from_numpy(corners), "point_labels": _BOX}
                    session.add_point_inputs(index, step, given)
                session.obj_with_new_inputs.append(1)
            found = self.model(session, frame=pixel_values(image, self.info, self.device), frame_idx=step)
            session.processed_frames.clear()
            session.output_dict_per_obj[index]["non_cond_frame_outputs"].pop(step - kept, None)
            logits = transform.logits_to_original(found.pred_masks)[0, 0]
            yield Tracked((logits > 0).cpu().numpy(), float(found.object_score_logits))
