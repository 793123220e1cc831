"""What each command of `medsam` does: arguments in, one dictionary out (the JSON line), prose on the way."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medsam_helpers.errors import ConfigError, DataError, PromptError
from medsam_helpers.files import atomic_write
from medsam_helpers.runs.checks import check_names, check_output_dir, check_writable
from medsam_helpers.sam import checkpoints as weights

# Whatever takes seconds to import is imported inside its command, after what a typo can spoil was looked at.

Result = dict[str, Any]


def fetch_weights(args: Namespace) -> Result:
    """Fetch and check the light checkpoints, or list all."""
    pinned = [name for name, entry in weights.WEIGHTS.items() if isinstance(entry, weights.PinnedFile)]
    for name in args.names:
        if name not in weights.WEIGHTS:
            raise ConfigError(f"no checkpoint {name!r}: there are {', '.join(weights.WEIGHTS)}")
    if args.list:
        for name, entry in weights.WEIGHTS.items():
            where = entry.repository if name not in pinned else f"{entry.size / 1e6:.0f} MB, sha256 {entry.sha256[:12]}"
            print(f"{name:16} {entry.licence}  {where}  {entry.note}")
        return {"checkpoints": list(weights.WEIGHTS)}
    paths = {}
    for name in args.names or pinned:
        if name in pinned:
            paths[name] = str(weights.fetch(weights.WEIGHTS[name]))
        else:
            from medsam_helpers.sam.loading import load_sam

            load_sam(name)
            paths[name] = "in the hub's own cache"
        print(f"{name}: {paths[name]}")
    return paths


def draw_phantoms(args: Namespace) -> Result:
    """Write a phantom data set in the folder layout."""
    from medsam_helpers.phantoms.dataset import phantom_dataset, save_folder

    if not args.train + args.dev + args.val:
        raise ConfigError("nothing to draw: --train, --dev and --val are all 0")
    check_writable(args.output)
    dataset = phantom_dataset(args.kind, n_train=args.train, n_dev=args.dev, n_val=args.val, seed=args.seed)
    save_folder(dataset, args.output)
    print(f"{dataset} in {args.output}")
    return {"folder": str(args.output), "n_train": args.train + args.dev, "n_val": args.val}


def run_audit(args: Namespace) -> Result:
    """Print what is wrong with a data set; exit status 1 where something is."""
    from medsam_helpers.data.audit import audit
    from medsam_helpers.data.sources import SOURCES, load_data

    folder = Path(args.data).expanduser()
    report = audit(folder if args.data not in SOURCES and (folder / "images").is_dir() else load_data(args.data))
    print(report)
    counts = report.table.groupby("severity").size()
    found = {f"{severity}s": int(counts.get(severity, 0)) for severity in ("error", "warning", "note")}
    return {"exit_status": report.exit_status, **found}


def embed(args: Namespace) -> Result:
    """Fill the embedding store of a model for a data set."""
    from medsam_helpers.data.sources import load_data

    check_names(**_named(args))
    dataset = load_data(args.data, **_limits(args))
    segmenter = _segmenter(args, with_store=True)
    from medsam_helpers.runs.finetune import embed_cases

    parts = [embed_cases(segmenter, split) for split in (dataset.train, dataset.dev, dataset.val)]
    encoded, seconds = (sum(column) for column in zip(*parts, strict=True))
    print(f"{dataset}; {encoded} images encoded in {seconds:.1f} s ({segmenter.precision}); {segmenter.store.folder}")
    return {
        "encoded": encoded,
        "in_store": len(segmenter.store),
        "seconds_encode": round(seconds, 1),
        "precision": segmenter.precision,
        "store": str(segmenter.store.folder),
    }


def finetune(args: Namespace) -> Result:
    """Fine-tune, score once on val, write everything."""
    check_names(**_named(args))
    from medsam_helpers.runs.finetune import finetune
    from medsam_helpers.runs.folder import summary_text
    from medsam_helpers.runs.settings import RunConfig

    names = ("model", "recipe", "epochs", "lr", "batch", "box_mode", "precision", "seed", "tta")
    given = {name: getattr(args, name) for name in names}
    given["start"] = args.checkpoint and str(args.checkpoint)
    config = RunConfig().but(data=args.data, jitter_1024=args.jitter, **given, **_limits(args))
    run = finetune(config, args.output, command=args.command_line)
    figures = run.figures
    _tell_left_out(figures["left_out"])
    print(summary_text(run.table, f"{config}", f"{run.dataset}; scored on val"))
    low, high = figures["gain_ci95"]
    before = "random weights" if config.model in weights.SPECIALISTS else "zero-shot"
    gain, with_tta = f"{figures['gain']:+.3f} [{low:+.3f}, {high:+.3f}] (95 %)", " with tta" * args.tta
    print(f"gain{with_tta} over {before}, prompt {figures['prompt']}: {gain}")
    if not figures["best_epoch"]:
        print(f"no epoch was better than {args.checkpoint or before} on dev, so the weights are those it began with")
    print(f"written to {args.output}: summary.md, before_after.png, metrics.csv, decoder.safetensors, run_card.json")
    return figures


def evaluate(args: Namespace) -> Result:
    """Score a model or a fine-tuned decoder on a split."""
    from medsam_helpers.data.sources import load_data

    check_names(**_named(args))
    check_output_dir(args.output, mark="metrics.csv", never="decoder.safetensors")
    # Pixels of the other splits are of no use here: a limit of 0 leaves them unread.
    limits = _limits(args) | {f"{split}_limit": 0 for split in ("train", "dev", "val") if split != args.split}
    dataset = load_data(args.data, **limits)
    cases = getattr(dataset, args.split)
    if not len(cases):
        raise DataError(f"{args.data}: the split {args.split} is empty: choose another --split, or raise its limit")
    segmenter = _segmenter(args, with_store=True)

    from medsam_helpers.evaluation.tables import bootstrap_mean, write_table
    from medsam_helpers.prompts import prompt_name
    from medsam_helpers.runs.card import write_run_card
    from medsam_helpers.runs.finetune import evaluate_model
    from medsam_helpers.runs.folder import name_left_out, summary_text

    model = "tuned" if args.checkpoint else "zero-shot"
    box_mode = args.box_mode or _trained_with(args).get("box_mode", "union")
    table = evaluate_model(segmenter, cases, model, args.jitter, box_mode)
    own = table[table["model"] == model]
    mean, low, high = bootstrap_mean(own["dice"])
    figures = {
        "dice": round(mean, 6),
        "dice_ci95": [round(low, 6), round(high, 6)],
        **{name: round(own[name].mean(), 6) for name in ("iou", "hd95_percent", "nsd")},
        "n": len(own),
        "left_out": name_left_out(dataset, table, args.data),
    }
    write_table(table, args.output / "metrics.csv")
    write_run_card(
        args.output / "run_card.json",
        command=args.command_line,
        data_digest=cases.digest,
        seconds=args.elapsed(),
        model=args.checkpoint.resolve().name if args.checkpoint else segmenter.info.name,
        split=args.split,
        prompt=prompt_name(args.jitter),
        box_mode=box_mode,
        tta=args.tta,
        precision=segmenter.precision,
        metrics=figures,
    )
    _tell_left_out(figures["left_out"])
    title, about = f"{args.checkpoint or args.model} on {args.data}", f"{dataset.name}, {args.split}: {len(own)} cases"
    print(summary_text(table, title, about))
    return figures


def reproduce(args: Namespace) -> Result:
    """Run an experiment and record it, or list them."""
    from medsam_helpers.runs.reproduce import command

    return command(args)


def predict(args: Namespace) -> Result:
    """One mask for one image, from boxes or points; several prompts give the union of their masks."""
    from medsam_helpers.data.reading import read_image

    points = [*(args.point or []), *(args.background or [])]
    if not args.box and not args.point:
        raise PromptError("no prompt: pass --box X0 Y0 X1 Y1, or --point X Y")
    if points and len(args.box or []) > 1:
        raise PromptError("points refine one box: pass several boxes, or one box with points")
    check_names(**_named(args))
    if args.output.suffix.lower() != ".png" or args.output.is_dir():
        raise ConfigError(f"{args.output}: the mask is written as PNG, so name a file that ends in .png")
    if args.output.exists() and args.image.exists() and args.output.samefile(args.image):
        raise ConfigError(f"{args.output} is the image itself, which the mask would overwrite: name another file")
    check_writable(args.output.parent)
    image = read_image(args.image)

    from medsam_helpers.geometry import check_boxes, check_points

    prompts = {}
    if args.box:
        check_boxes(args.box, image.shape[:2])
        prompts["boxes"] = np.array(args.box)
    if points:
        check_points(points, image.shape[:2])
        labels = [1] * len(args.point or []) + [0] * len(args.background or [])
        prompts |= {"points": np.array(points), "labels": np.array(labels)}
    prediction = _segmenter(args).predict(image, **prompts)
    mask = prediction.masks[:, 0].any(axis=0)
    with atomic_write(args.output) as temporary:
        Image.fromarray(mask.astype(np.uint8) * 255).save(temporary)
    scores = [round(float(score), 3) if np.isfinite(score) else None for score in prediction.scores[:, 0]]
    print(f"{args.output}: {int(mask.sum())} pixels ({mask.mean():.1%} of the image), model's own IoU guess {scores}")
    return {"mask": str(args.output), "area": int(mask.sum()), "iou_score": scores}


def export(args: Namespace) -> Result:
    """Write the whole model with `save_pretrained`, and send it to the hub where asked."""
    check_names(**_named(args))
    check_writable(args.output)
    from medsam_helpers.sam.export import check_hub_access, export_model, push_to_hub

    if args.push_to_hub is not None:  # an empty name, of an unset variable, is a mistake too
        check_hub_access(args.push_to_hub)
    folder = export_model(args.checkpoint or args.model, args.output)
    print(f"written to {folder}")
    result = {"folder": str(folder)}
    if args.push_to_hub:
        result["url"] = push_to_hub(folder, args.push_to_hub)
        print(f"sent to {result['url']}")
    return result


def _segmenter(args: Namespace, with_store: bool = False):
    from medsam_helpers.sam.embeddings import EmbeddingStore
    from medsam_helpers.sam.loading import load_sam
    from medsam_helpers.sam.segmenter import Segmenter
    from medsam_helpers.sam.tuned import load_checkpoint

    checkpoint = getattr(args, "checkpoint", None)
    model = load_checkpoint(checkpoint) if checkpoint else load_sam(args.model)
    precision = args.precision or _trained_with(args).get("precision", "auto")
    segmenter = Segmenter(model, precision=precision, tta=getattr(args, "tta", False))
    if with_store:
        segmenter.store = EmbeddingStore.for_model(segmenter.info, segmenter.precision)
    return segmenter


def _trained_with(args: Namespace) -> dict[str, Any]:
    """The recipe of the checkpoint, if there is one."""
    from medsam_helpers.sam.tuned import read_card

    return read_card(args.checkpoint).get("recipe", {}) if getattr(args, "checkpoint", None) else {}


def _named(args: Namespace) -> dict[str, Any]:
    return {name: getattr(args, name, None) for name in ("model", "checkpoint", "data")}


def _limits(args: Namespace) -> dict[str, Any]:
    return {name: getattr(args, name) for name in ("train_limit", "dev_limit", "val_limit", "skip_bad")}


def _tell_left_out(names: list[str]) -> None:
    if names:
        print(f"left out {len(names)}: {', '.join(names)}")
