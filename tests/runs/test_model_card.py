"""The model card says what the model was trained to be asked with."""

import json
from pathlib import Path

import pytest

from medsam_helpers.runs.model_card import write_model_card

CARD = Path(__file__).parents[2] / "checkpoints" / "kvasir-polyps" / "run_card.json"


@pytest.mark.parametrize(
    ("changes", "said", "title"),
    [
        ({}, "trained with boxes only", "decoder fine-tuned"),
        ({"prompts": ["box", "point"], "score_weight": 1}, "trained with clicks too", "decoder fine-tuned"),
        ({"prompts": ["none"], "trainable": ["automatic_head"]}, "finds lesions by itself", "automatic head trained"),
    ],
)
def test_it_says_which_prompts_the_model_knows_and_what_its_score_is_worth(tmp_path, changes, said, title):
    card = json.loads(CARD.read_text())
    write_model_card(tmp_path / "README.md", card | {"recipe": card["recipe"] | changes, "start": {"name": "first"}})
    text = (tmp_path / "README.md").read_text()
    assert (title in text, "stays as it was" in text) == (True, "head" in title)
    told = {"trained with boxes only", "trained with clicks too", "finds lesions by itself"}
    assert {one for one in told if one in text} == {said}
    assert ("score is fitted to images" in text, "calibrated" not in text) == ("score_weight" in changes,) * 2
