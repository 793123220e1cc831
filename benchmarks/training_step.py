"""What a training step needs, by model and by what trains: memory, counted from shapes in fp32, or seconds.

    python benchmarks/training_step.py [--seconds MODEL]

Prints the table of docs/gpu.md: GiB for weights, gradients, AdamW's two means, and what the forward pass keeps for the
backward pass, by batch. On torch's `meta` device, so no weights are fetched and no memory is taken. A library's
workspace, freed blocks and resident embeddings come on top. With `--seconds` a step's time instead: the shortest of two
after a first one, one image and one box, random weights, in the precision that `auto` takes.
"""
# make bench:

import argparse
import time
from unittest import mock

import torch
from transformers import SamConfig
from transformers.models.sam.modeling_sam import SamPositionalEmbedding

from medsam_helpers.device import autocast, default_device, effective_precision
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


def seconds(name: str, recipe: str) -> tuple[float, str]:
    """Seconds of a step on the pixels of one image, and the precision."""
    torch.manual_seed(0)
    settings, device = get_recipe(recipe).as_dict(), default_device()
    model = Sam(CONFIGS[name])
    if name == "mobile-sam":
        model.vision_encoder.fuse()
    training = unfrozen(model, settings).to(device).train()
    optimizer = torch.optim.AdamW(freeze_all_but(training, settings["trainable"]), lr=1e-6)
    seen = training.get_image_embeddings(torch.rand(1, 3, 1024, 1024, device=device))
    box = torch.tensor([[[100.0, 100, 900, 900]]], device=device)
    precision, clocks = effective_precision("auto", device), []
    for _ in range(3):
        began = time.perf_counter()
        with autocast(device, precision):
            masks = training(image_embeddings=seen, input_boxes=box, multimask_output=False).pred_masks
        masks.float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        clocks.append(time.perf_counter() - began)
    return min(clocks[1:]), precision


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", metavar="MODEL", choices=CONFIGS)
    if timed := parser.parse_args().seconds:
        for way in ("decoder, embeddings kept", "LoRA, rank 16", "whole encoder"):
            took, precision = seconds(timed, RECIPES[way])
            print(f"| {way} | `{timed}` | {took:.2g} s, {precision} |", flush=True)
        return
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
