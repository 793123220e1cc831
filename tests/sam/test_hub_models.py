"""The pretrained models of the hub, where it is reached: loaded, one prediction, one step of training.

`make test-hub` runs these, a workflow does every week; without the hub they are reported as skipped.
"""

import copy

import numpy as np
import pytest
import torch
from helpers import embedded
from transformers import Sam2Model, SamModel

from medsam_helpers.data.hub import hub_answers
from medsam_helpers.evaluation.metrics import dice
from medsam_helpers.phantoms.dataset import phantom_dataset
from medsam_helpers.prompts import mask_to_boxes
from medsam_helpers.sam.checkpoints import WEIGHTS
from medsam_helpers.sam.loading import load_sam, pixel_values
from medsam_helpers.training.loop import fit
from medsam_helpers.training.recipes import get_recipe

pytestmark = [pytest.mark.hub, pytest.mark.slow]


@pytest.mark.parametrize("name", ["sam-vit-base", "medsam-vit-base", "sam2-hiera-tiny"])
def test_a_pretrained_model_answers_as_plain_transformers_does_and_learns(name, tmp_path):
    if not hub_answers():
        pytest.skip("the model hub does not answer")
    case = phantom_dataset(n_train=1).train[0]
    model = load_sam(name)
    segmenter = embedded(model, [case], tmp_path)
    box = mask_to_boxes(case.mask)
    found = segmenter.predict_case(case, box)[0][0]
    assert dice(found, case.mask) > 0.8
    entry, kind = WEIGHTS[name], Sam2Model if segmenter.info.squashed else SamModel
    plain = kind.from_pretrained(entry.repository, revision=entry.revision).eval()
    plain.mask_decoder.dynamic_multimask_via_stability = False  # of SAM 2
    transform = segmenter.info.transform(case.size_hw)
    boxes = torch.from_numpy(transform.to_model(box))[None]
    with torch.inference_mode():
        pixels = pixel_values(case.image, segmenter.info)
        logits = plain(pixel_values=pixels, input_boxes=boxes, multimask_output=False).pred_masks[:, 0]
    assert dice(transform.logits_to_original(logits)[0, 0].numpy() > 0, found) > 0.995, "half precision in the store"
    tuned, recipe = copy.deepcopy(model), get_recipe("quick").but(epochs=1, precision="fp32")
    result = fit(tuned, [case], [case], recipe, segmenter.store, tmp_path / "run", show_progress=False)
    assert np.isfinite(result.history["loss"][1])
