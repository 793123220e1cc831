"""What a training step needs in memory, by model, by what trains, and by batch: counted from shapes, in fp32.

    python benchmarks/training_memory.py

Prints the table of docs/gpu.md: GiB for weights, gradients, AdamW's two means, and what the forward pass keeps for the
backward pass. On torch's `meta` device, so no weights are fetched and no memory is taken. A library's workspace, freed
blocks and resident embeddings come on top.
"""
# make bench:

from unittest import mock

import torch
from transformers import SamConfig
from transformers.models.sam.modeling_sam import SamPositionalEmbedding

from medsam_helpers.figures.sam import kept_for_backward
from medsam_helpers.sam.light import light_config
from medsam_helpers.sam.model import FullPrecisionPositions, Sam, freeze_all_but
from medsam_helpers.sam.unfrozen import unfrozen
from medsam_helpers.training.recipes import get_recipe

BATCHES = (1, 2, 4)
CONFIGS = {"mobile-sam": light_config("mobile-sam"), "sam-vit-base": SamConfig()}
RECIPES = {
    "decoder, embeddings kept": "best",
    "last stage": "last-stage",
    "LoRA, rank 16": "lora",
    "whole encoder": "whole-encoder",
}


def gib(model: Sam, recipe: str, batch: int) -> float:
    """GiB of a step of the recipe with so many images, one box each."""
    settings = get_recipe(recipe).as_dict()
    if recipe == "lora":
        assert settings["lora_rank"] == 16, "the table's row says so"
    training = unfrozen(model, settings)
    trained = sum(weight.numel() for weight in freeze_all_but(training, settings["trainable"]))
    seen = training.get_image_embeddings(torch.empty(batch, 3, 1024, 1024))
    training.train()
    prompted = {"image_embeddings": seen, "input_boxes": torch.empty(batch, 1, 4), "multimask_output": False}
    kept = kept_for_backward(training, lambda: training(**prompted).pred_masks)
    numbers = sum(weight.numel() for weight in training.parameters()) + 3 * trained
    return (4 * numbers + kept) / 2**30


def main() -> None:
    """Print the table."""
    print("| what trains | model |", " | ".join(f"batch {batch}" for batch in BATCHES), "|")
    print("|---|---|" + "---|" * len(BATCHES))
    for way, recipe in RECIPES.items():
        for name, config in CONFIGS.items():
            if recipe == "last-stage" and name != "mobile-sam":
                continue
            plain = SamPositionalEmbedding.forward  # autocast, which the other switches off, does not know `meta`
            with torch.device("meta"), mock.patch.object(FullPrecisionPositions, "forward", plain):
                model = Sam(config)
                if name == "mobile-sam":
                    model.vision_encoder.fuse()
                sizes = [f"{gib(model.eval(), recipe, batch):.1f}" for batch in BATCHES]
            print(f"| {way} | `{name}` |", " | ".join(sizes), "|", flush=True)


if __name__ == "__main__":
    main()
