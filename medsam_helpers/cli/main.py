"""The command line: `python -m medsam_helpers`, or `medsam`."""

from __future__ import annotations

import argparse
import json
import math
import shlex
import signal
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from medsam_helpers import __version__
from medsam_helpers.errors import MedsamError


class _Parser(argparse.ArgumentParser):
    """One line for a wrong argument, with where to look, in place of the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"medsam: {message} (see `{self.prog} --help`)\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; each sets `run` to the name of its function in `commands`."""
    parser = _Parser(
        prog="medsam", description="Fine-tune, evaluate and prompt Segment Anything models. Not for clinical use."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: str, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        sub.add_argument("--json", action="store_true", help="the last line of the output is one JSON object")
        return sub

    sub = command("weights", "fetch_weights", "fetch the light checkpoints and check their hashes")
    sub.add_argument("names", nargs="*", metavar="NAME", help="default: mobile-sam lite-medsam")
    sub.add_argument("--list", action="store_true", help="list all, with licences")

    sub = command("phantoms", "draw_phantoms", "write a phantom data set as a folder")
    sub.add_argument("--kind", choices=("endoscopy", "ultrasound"), default="endoscopy")
    for split, size in (("train", 80), ("dev", 16), ("val", 64)):
        sub.add_argument(f"--{split}", type=_count, default=size, metavar="N")
    sub.add_argument("--seed", type=_count, default=0, metavar="N")
    sub.add_argument("--output", type=_path, required=True, metavar="DIR")

    sub = command("audit", "run_audit", "list what is wrong with a data set; exit status 1 if something is")
    sub.add_argument("data", metavar="DATA", help=_DATA)

    sub = command("embed", "embed", "compute a data set's embeddings and keep them")
    _add_data(sub)
    _add_model(sub, checkpoint=False)

    sub = command("finetune", "finetune", "fine-tune the mask decoder, score it once on val")
    _add_data(sub)
    sub.add_argument(
        "--model", default="mobile-sam", metavar="NAME", help="a name of `medsam weights --list`, or a path"
    )
    sub.add_argument(  # by its dest it is looked for, as any checkpoint, before anything is read
        "--start", dest="checkpoint", type=_checkpoint, metavar="DIR", help=f"decoder to begin with: {_CHECKPOINT}"
    )
    sub.add_argument("--precision", choices=_PRECISIONS, help="default: the recipe's")
    sub.add_argument("--recipe", choices=RECIPE_NAMES, default="best", help="default: best")
    sub.add_argument("--epochs", type=_count, metavar="N", help="default: the recipe's; likewise for what follows")
    sub.add_argument("--lr", type=_amount, metavar="F")
    sub.add_argument("--batch", type=_count, metavar="N")
    sub.add_argument("--jitter", type=_amount, metavar="PX1024", help="in training and scoring; 0: exact boxes")
    sub.add_argument("--box-mode", choices=_BOX_MODES)
    sub.add_argument("--seed", type=_count, default=0, metavar="N")
    sub.add_argument("--tta", action="store_true", help=f"score the tuned model with it: {_TTA}")
    sub.add_argument("--output", type=_path, default=Path("runs/finetune"), metavar="DIR")

    sub = command("evaluate", "evaluate", "score a model or a fine-tuned decoder, an image a row")
    _add_data(sub)
    _add_model(sub)
    sub.add_argument("--split", choices=("train", "dev", "val"), default="val")
    sub.add_argument("--jitter", type=_amount, default=20.0, metavar="PX1024", help="0: exact boxes (default 20)")
    sub.add_argument("--box-mode", choices=_BOX_MODES, help="default: as the checkpoint was trained, else union")
    sub.add_argument("--tta", action="store_true", help=_TTA)
    sub.add_argument("--output", type=_path, default=Path("runs/evaluate"), metavar="DIR")

    sub = command("reproduce", "reproduce", "run an experiment of experiments/ and record it; goes on after a stop")
    sub.add_argument("name", nargs="?", metavar="NAME", help="of a file there, without .toml")
    sub.add_argument(
        "--data", action="append", metavar="[NAME=]SOURCE", help=f"in place of the data set of that name; {_DATA}"
    )
    sub.add_argument("--output", type=_path, metavar="DIR", help="default: notebooks/results/NAME")
    sub.add_argument("--missing", action="store_true", help="keep the runs that the record there holds, add the others")
    sub.add_argument("--list", action="store_true", help="list the experiments there are")

    sub = command("predict", "predict", "one mask for one image")
    _add_model(sub)
    sub.add_argument("--image", type=_path, required=True, metavar="FILE")
    sub.add_argument("--box", type=float, nargs=4, action="append", metavar=("X0", "Y0", "X1", "Y1"))
    sub.add_argument("--point", type=float, nargs=2, action="append", metavar=("X", "Y"), help="on the lesion")
    sub.add_argument("--background", type=float, nargs=2, action="append", metavar=("X", "Y"), help="beside the lesion")
    sub.add_argument("--tta", action="store_true", help=_TTA)
    sub.add_argument("--output", type=_path, default=Path("mask.png"), metavar="MASK.png")

    sub = command("export", "export", "write the whole model for plain transformers")
    _add_model(sub)
    sub.add_argument("--output", type=_path, required=True, metavar="DIR")
    sub.add_argument("--push-to-hub", metavar="REPO", help="OWNER/NAME; needs HF_TOKEN in the environment")
    return parser


RECIPE_NAMES = ("quick", "best", "guide", "sam", "medsam", "last-stage", "unet")
"""Spelt out, as importing the recipes takes seconds; a test holds them in step."""
_PRECISIONS = ("auto", "fp32", "bf16", "fp16")
_BOX_MODES = ("union", "components")
_CHECKPOINT = "a folder that finetune wrote, or the name of one in checkpoints/"
_TTA = "test-time augmentation: the mirror image too, and the mean of both answers; twice the encoding"
_DATA = "a folder with images/ and masks/, or phantom, phantom-ultrasound, kvasir, breast"


def _add_data(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--data", required=True, metavar="SOURCE", help=_DATA)
    for split in ("train", "dev", "val"):
        sub.add_argument(f"--{split}-limit", type=_count, metavar="N", help=f"at most N {split} cases")
    sub.add_argument("--skip-bad", action="store_true", help="leave bad files out, counted and named")


def _add_model(sub: argparse.ArgumentParser, checkpoint: bool = True) -> None:
    group = sub.add_mutually_exclusive_group(required=True) if checkpoint else sub
    group.add_argument(
        "--model", metavar="NAME", help="a name of `medsam weights --list`, or a path", required=not checkpoint
    )
    if checkpoint:
        group.add_argument("--checkpoint", type=_checkpoint, metavar="DIR", help=_CHECKPOINT)
    sub.add_argument(
        "--precision", choices=_PRECISIONS, help="of the encoder; default: as the checkpoint was trained, else auto"
    )


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return number


def _amount(text: str) -> float:
    number = float(text)
    if not (math.isfinite(number) and number >= 0):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number from 0 up")
    return number


def _path(text: str) -> Path:
    return Path(text).expanduser()  # the shell does not do it in --output=~/runs


def _checkpoint(text: str) -> Path:
    from medsam_helpers.files import find_checkpoint

    return find_checkpoint(text)


_count.__name__, _amount.__name__ = "whole number", "number"  # as argparse's messages call them


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit status: 0, 1 (audit found errors), 2 (one line said why), 130 (interrupted)."""
    args = build_parser().parse_args(argv)
    started = time.perf_counter()
    args.elapsed = lambda: time.perf_counter() - started
    args.command_line = shlex.join(["medsam", *(argv if argv is not None else sys.argv[1:])])
    # A scheduler that ends the job asks with SIGTERM: what was computed is kept as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: _tell(f"warning: {message}")
        try:
            from medsam_helpers.cli import commands

            result = getattr(commands, args.run)(args)
        except MedsamError as error:
            print(f"medsam: {error}", file=sys.stderr)
            return 2
        except OSError as error:
            # A full disk, a folder without permission: the system's own words name the file.
            _tell(error)
            return 2
        except KeyboardInterrupt:
            resumes = args.run in ("embed", "finetune", "reproduce")
            _tell("interrupted" + "; the same command goes on from here" * resumes)
            return 130
    if args.json:
        print(json.dumps(result))
    return result.get("exit_status", 0)


def _tell(message: object) -> None:
    """One line on the error stream, however many the message has."""
    print("medsam:", *str(message).split(), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
