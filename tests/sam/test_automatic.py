"""The head that needs no prompt."""

import pytest
import torch
from helpers import draw_discs, embedded, save_images

from medsam_helpers.errors import PromptError
from medsam_helpers.evaluation.evaluate import evaluate
from medsam_helpers.runs.export import export_model
from medsam_helpers.runs.finetune import finetune
from medsam_helpers.runs.settings import RunConfig
from medsam_helpers.sam.loading import load_sam
from medsam_helpers.sam.model import add_automatic_head
from medsam_helpers.sam.segmenter import Segmenter
from medsam_helpers.sam.tuned import load_checkpoint

BOX = [5, 5, 40, 40]


def test_a_head_answers_without_a_prompt_and_leaves_every_other_answer(tiny_folder):
    (case,) = draw_discs(1)
    plain, model = Segmenter(load_sam(tiny_folder), "cpu"), load_sam(tiny_folder)
    with pytest.raises(PromptError, match="no prompt"):
        plain.predict(case.image)
    add_automatic_head(model, seed=1)
    with_head = Segmenter(model, "cpu")
    assert (plain.needs_prompt, with_head.needs_prompt) == (True, False)
    found = with_head.predict(case.image)
    assert (found.masks.shape, found.logits.shape) == ((1, 1, *case.size_hw), (1, 1, 64, 64))
    with torch.inference_mode():
        assert torch.equal(found.logits, model.automatic_head(with_head.embed(case.image).features))
    before, after = (segmenter.predict(case.image, boxes=BOX) for segmenter in (plain, with_head))
    assert torch.equal(before.logits, after.logits)


def test_a_head_that_began_with_a_decoder_for_clicks_takes_clicks_without_a_warning():
    assert not load_checkpoint("kvasir-polyps-lora-any-prompt").config.boxes_only


def test_a_run_trains_the_head_alone_and_its_checkpoint_answers_with_and_without_a_prompt(tiny_folder, tmp_path, cache):
    cases = save_images(draw_discs(12), tmp_path / "discs", n_train=8)
    change = {"epochs": 12, "views": ("as-is",), "batch": 2, "precision": "fp32"}
    config = RunConfig(model=str(tiny_folder), data=str(tmp_path / "discs"), recipe="automatic", change=change)
    run = finetune(config, tmp_path / "run", show_progress=False)
    assert run.figures["prompt"] == "none"
    assert run.figures["tuned_dice"] > 0.5, "discs in the middle are soon learnt"
    model = load_checkpoint(tmp_path / "run")
    assert not getattr(model.config, "boxes_only", False), "its decoder is the base's, which takes clicks"
    untouched = load_sam(tiny_folder).mask_decoder.state_dict()
    assert all(torch.equal(weight, untouched[name]) for name, weight in model.mask_decoder.state_dict().items())
    loaded = embedded(model, cases, tmp_path / "embeddings")
    table = evaluate(cases[8:], {"loaded": loaded}, prompts=["none", "j20"], show_progress=False)
    means = table.groupby(["model", "prompt"])["dice"].mean()
    assert means["loaded", "none"] == pytest.approx(run.figures["tuned_dice"], abs=1e-4)
    # As the start of another run its head is kept, though the decoder trains.
    again = config.but(recipe="quick", start=str(tmp_path / "run"), change={"epochs": 1, "precision": "fp32"})
    finetune(again, tmp_path / "again", show_progress=False)
    kept = load_checkpoint(tmp_path / "again").automatic_head.state_dict()
    assert all(torch.equal(weight, kept[name]) for name, weight in model.automatic_head.state_dict().items())
    plain = load_sam(export_model(tmp_path / "run", tmp_path / "exported"))
    assert hasattr(plain, "automatic_head"), "our own loading keeps the head"
