"""The light models, against what the original implementations answered."""

from pathlib import Path

import numpy as np
import pytest
import torch
from reference_image import BOX, reference_image

from medsam_helpers.evaluation.metrics import dice
from medsam_helpers.runs.export import export_model
from medsam_helpers.sam import checkpoints
from medsam_helpers.sam.loading import load_sam, model_info, pixel_values, state_digest
from medsam_helpers.sam.segmenter import Segmenter


def reference(name: str) -> dict[str, np.ndarray]:
    """Computed with the authors' own code (MobileSAM at 34bbbfd, LiteMedSAM at b0fab47) on the same pixels."""
    with np.load(Path(__file__).parent / f"reference_{name}.npz") as file:
        return dict(file)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobile-sam", "lite-medsam"])
def test_encoder_and_decoder_answer_as_the_original_implementation(name):
    expected, model, image = reference(name), load_sam(name, show_progress=False), reference_image()
    info = model_info(model)
    with torch.inference_mode():
        embedding = model.get_image_embeddings(pixel_values(image, info))
        box = torch.from_numpy(info.transform(image.shape[:2]).to_model(BOX))[None, None]
        single = model(image_embeddings=embedding, input_boxes=box, multimask_output=False)
        several = model(image_embeddings=embedding, input_boxes=box, multimask_output=True)
    np.testing.assert_allclose(embedding[0, ::8, ::4, ::4], expected["embedding"], atol=2e-4)
    moments = [expected["embedding_mean"].item(), expected["embedding_std"].item()]
    assert [embedding.mean().item(), embedding.std().item()] == pytest.approx(moments, abs=1e-5)
    logits = single.pred_masks[0, 0, 0]
    np.testing.assert_allclose(logits[::4, ::4], expected["logits"], atol=5e-3)
    mask = np.unpackbits(expected["mask"]).reshape(256, 256).astype(bool)
    assert mask.sum() > 100, "the reference must hold a mask"
    assert ((logits > 0).numpy() != mask).mean() < 1e-4
    scores = torch.cat([single.iou_scores, several.iou_scores], dim=2)[0, 0]
    np.testing.assert_allclose(scores, expected["scores"], atol=1e-3)
    found = Segmenter(model, "cpu", precision="fp32").predict(image, boxes=BOX).masks[0, 0]
    y, x = np.mgrid[:400, :600]
    assert dice(found, ((x - 240) / 80) ** 2 + ((y - 175) / 75) ** 2 < 1) > 0.97, "the ellipse that was drawn"


@pytest.mark.slow
def test_a_light_model_survives_its_export_and_its_file_is_known_by_its_hash(mobile_sam, tmp_path):
    exported = export_model("mobile-sam", tmp_path / "exported")
    assert "TinyViT" in (exported / "README.md").read_text()
    renamed = tmp_path / "renamed.bin"
    renamed.symlink_to(checkpoints.fetch(checkpoints.WEIGHTS["mobile-sam"]))
    assert model_info(load_sam(renamed)) == model_info(mobile_sam)
    assert state_digest(load_sam(exported)) == state_digest(mobile_sam) == state_digest(load_sam(renamed))
