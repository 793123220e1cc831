"""The command line, each command for real: a tiny random SAM, a small folder, what is written and what is said."""

import contextlib
import hashlib
import io
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Semaphore

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock
from helpers import Said, draw_discs, make_tiny_sam, medsam, save_images, stored_run, without_bars
from PIL import Image
from safetensors.torch import load_file

from medsam_helpers.cli.main import COMMANDS, build_parser, main
from medsam_helpers.data.reading import read_image
from medsam_helpers.runs import finetune as engine
from medsam_helpers.runs.embed import keep_freed_memory
from medsam_helpers.runs.finetune import get_or_train
from medsam_helpers.runs.settings import RunConfig
from medsam_helpers.sam.checkpoints import WEIGHTS, sha256_of
from medsam_helpers.sam.loading import load_sam
from medsam_helpers.sam.model import add_automatic_head, part_of
from medsam_helpers.sam.segmenter import Segmenter
from medsam_helpers.training.state import STATE_FILE

TRAINING = ["--precision", "fp32", "--epochs", "4", "--lr", "3e-3", "--batch", "2", "--jitter", "20"]
FEW = {"train_limit": 2, "dev_limit": 1, "val_limit": 1}


def one_line(said: Said, expected: str) -> None:
    """The command failed and said why, in one line."""
    assert (said.status, len(said.err)) == (2, 1), said.err
    assert said.err[0].startswith("medsam: ")
    assert expected in said.err[0]


@pytest.fixture(scope="module")
def place(place):
    """With a model that has a head too, an image, and a file."""
    with_head = load_sam(place / "tiny")
    add_automatic_head(with_head)
    with_head.save_pretrained(place / "with-head")
    shutil.copy(place / "data" / "images" / "disc-0.png", place / "image.png")
    (place / "file").write_text("a file, not a folder")
    return place


@pytest.fixture(autouse=True)
def in_place(place, monkeypatch):
    monkeypatch.chdir(place)


@pytest.fixture(scope="module")
def tuned(place):
    """What a fine-tuning said; its folder is `run`."""
    with contextlib.chdir(place):
        said = medsam("finetune", "--data", "data", "--model", "tiny", *TRAINING, "--output", "run", "--json")
    assert said.status == 0, said.err
    return said


def files_of(folder: Path) -> dict[Path, str]:
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def test_finetune_says_all_that_was_promised_and_its_headline_is_the_mean_of_the_table(tuned):
    figures = tuned.json
    # Recipe `best` shows four views of each training case, and each is encoded.
    assert (figures["n_train"], figures["n_dev"], figures["n_val"], figures["encoded"]) == (7, 1, 4, 4 * 7 + 1 + 4)
    assert (figures["left_out"], figures["precision"]) == ([], "fp32")
    assert figures["gain"] == pytest.approx(figures["tuned_dice"] - figures["zero_shot_dice"], abs=1e-5)
    assert figures["gain_ci95"] == [None, None], "of four images"
    assert "(no interval below 5 images)" in Path("run/README.md").read_text()
    assert "Gain of tuned over zero-shot, prompt j20: +" in Path("run/summary.md").read_text()
    assert figures["tuned_dice"] > figures["zero_shot_dice"], "four epochs on discs teach something"
    table = pd.read_csv("run/metrics.csv")
    assert ",".join(table) == "case,model,prompt,seed,dice,iou,hd95_percent,nsd,area_true,area_pred,iou_score"
    assert set(table["prompt"]) == {"exact", "j20"}
    assert len(table) == 4 * 4 * 2
    means = table[table["prompt"] == "j20"].groupby("model")["dice"].mean()
    said = [figures[name] for name in ("box_dice", "ellipse_dice", "zero_shot_dice", "tuned_dice")]
    assert said == pytest.approx(list(means[["box", "ellipse", "zero-shot", "tuned"]]), abs=1e-4)


def test_two_data_sets_are_trained_on_and_scored_as_one_and_apart(tmp_path, monkeypatch):
    save_images(draw_discs(5, seed=1), tmp_path / "more", n_train=3)
    shown, fit = [], engine.fit
    monkeypatch.setattr(engine, "fit", lambda *a, **k: shown.append(len(a[1])) or fit(*a, **k))
    both = ["--data", "data", "--data", tmp_path / "more", "--balanced"]
    said = medsam("finetune", *both, "--model", "tiny", *TRAINING, "--output", tmp_path / "run", "--json")
    assert (said.json["n_train"], said.json["n_val"], shown) == (7 + 2, 4 + 2, [7 + 7])
    dice = [said.json["by_set"][name]["tuned_dice"] for name in ("data", "more")]
    assert said.json["tuned_dice"] == pytest.approx(np.average(dice, weights=[4, 2]), abs=1e-5)
    one_line(medsam("finetune", "--data", "data", "--data", "dat", "--model", "tiny"), "no data source 'dat'")


def test_a_training_that_diverged_says_so(tmp_path):
    said = medsam("finetune", "--data", "data", "--model", "tiny", *TRAINING, "--lr", 1, "--output", tmp_path / "run")
    assert any("training diverged: dev Dice fell from" in line for line in said.err), said.err


def test_a_recipe_or_a_start_of_another_model_is_refused_before_anything_is_encoded(tuned, monkeypatch):
    monkeypatch.setattr(engine, "embed_cases", None)
    make_tiny_sam(seed=1).save_pretrained("other")
    refused = {"--model tiny --recipe last-stage": "last_stage is a part of TinyViT only"}
    refused |= {"--model other --start run": "trained on tiny with digest"}
    for arguments, expected in refused.items():
        one_line(medsam("finetune", "--data", "data", *arguments.split(), "--output", "run-refused"), expected)


def test_training_goes_on_from_a_fine_tuned_decoder_and_is_measured_from_the_base(tuned):
    """A rate of next to nothing keeps the start's weights; the gain is the start's, over the same base."""
    arguments = ["--data", "data", "--model", "tiny", "--precision", "fp32", "--jitter", 20, "--json"]
    said = medsam("finetune", *arguments, "--start", "run", "--epochs", 1, "--lr", "1e-30", "--output", "run-on")
    assert (said.json["zero_shot_dice"], said.json["gain"]) == (tuned.json["zero_shot_dice"], tuned.json["gain"])
    assert "no epoch was better than run on dev, so the weights are those it began with" in said.out
    start = json.loads(Path("run-on/run_card.json").read_text())["start"]
    assert start == {"name": "run", "sha256": sha256_of(Path("run/decoder.safetensors"))}
    assert "begun with the decoder `run`" in Path("run-on/README.md").read_text()


def test_an_encoder_that_was_trained_may_stay_as_it_is_and_is_the_base_of_further_steps(tuned):
    arguments = ["--data", "data", "--model", "tiny", "--precision", "fp32", "--epochs", 1, "--json"]
    lora = medsam("finetune", *arguments, *TRAINING, "--recipe", "lora", "--augment", "--output", "run-lora")
    after = medsam("finetune", *arguments, "--start", "run-lora", "--lr", "1e-30", "--output", "run-after")
    assert after.json["tuned_dice"] == pytest.approx(lora.json["tuned_dice"], abs=1e-3) != tuned.json["zero_shot_dice"]
    last = medsam("finetune", *arguments, "--start", "run-after", "--lr", "1e-3", "--output", "run-last")
    cards = [json.loads(Path(name, "run_card.json").read_text()) for name in ("run-after", "run-last")]
    assert [Path(card["base_path"]) for card in cards] == [Path("run-lora").resolve()] * 2
    assert {part_of(name) for name in load_file("run-last/decoder.safetensors")} == {"mask_decoder"}
    again = medsam("evaluate", "--checkpoint", "run-last", "--data", "data", "--json", "--output", "ev-last")
    assert again.json["dice"] == last.json["tuned_dice"]
    assert again.json["zero_shot_dice"] == pytest.approx(tuned.json["zero_shot_dice"], abs=1e-5), "before any training"


def test_evaluating_the_checkpoint_reproduces_what_finetune_said_and_keeps_freed_memory(tuned):
    keep_freed_memory.cache_clear()
    said = medsam("evaluate", "--checkpoint", "run", "--data", "data", "--prompt", "j20", "--output", "ev", "--json")
    assert (said.json["dice"], said.json["n"]) == (tuned.json["tuned_dice"], 4)
    assert (said.json["dice_ci95"], said.json["gain_ci95"]) == ([None, None], [None, None])
    assert (said.json["zero_shot_dice"], said.json["gain"]) == (tuned.json["zero_shot_dice"], tuned.json["gain"])
    assert "Worst image of tuned, prompt j20: " in said.out
    table = pd.read_csv("ev/metrics.csv")
    assert set(table["model"]) == {"box", "ellipse", "zero-shot", "tuned"}
    assert "group" not in table
    own = table[table["model"] == "tuned"]
    for name in ("dice", "iou", "hd95_percent", "nsd"):
        assert said.json[name] == pytest.approx(own[name].mean(), abs=1e-4)
    assert keep_freed_memory.cache_info().currsize == 1, "it was asked for"


def test_tta_is_asked_for_by_name_and_told(tuned):
    """The tuned model is scored with it, its base with and without; evaluating gives the same, the cards say it."""
    said = medsam("finetune", "--data", "data", "--model", "tiny", *TRAINING, "--tta", "--output", "run-tta", "--json")
    assert said.json["zero_shot_dice"] == tuned.json["zero_shot_dice"]
    assert said.json["tuned_dice"] != tuned.json["tuned_dice"]
    like = said.json["tuned_dice"] - said.json["zero_shot_with_tta_dice"]
    assert said.json["gain_over_tta"] == pytest.approx(like, abs=1e-5)
    assert said.json["gain_over_tta"] != said.json["gain"]
    assert "Gain of tuned over zero-shot with tta" in Path("run-tta/summary.md").read_text()
    assert said.json["encoded"] == 4, "the mirror images of val; the rest lies in the store"
    assert "gain with tta over zero-shot" in said.out
    assert ", tta=True)" in Path("run-tta/README.md").read_text()
    assert "test-time" not in Path("run/README.md").read_text()
    arguments = ["--data", "data", "--prompt", "j20", "--tta", "--output", "ev-tta", "--json"]
    again = medsam("evaluate", "--checkpoint", "run", *arguments)
    assert (again.json["dice"], again.json["gain"]) == (said.json["tuned_dice"], said.json["gain_over_tta"])
    assert json.loads(Path("ev-tta/run_card.json").read_text())["tta"] is True


def test_a_checkpoint_is_scored_as_it_was_trained_unless_told_otherwise(tuned, tmp_path):
    checkpoint = shutil.copytree("run", tmp_path / "run")
    card = json.loads((checkpoint / "run_card.json").read_text())
    card["recipe"] |= {"box_mode": "components", "precision": "bf16"}
    (checkpoint / "run_card.json").write_text(json.dumps(card))
    arguments = ["--checkpoint", checkpoint, "--data", "data", "--val-limit", 1, "--output", tmp_path / "ev"]
    for told, expected in (("", ("components", "bf16")), ("--box-mode union --precision fp32", ("union", "fp32"))):
        assert medsam("evaluate", *arguments, *told.split()).status == 0
        found = json.loads((tmp_path / "ev" / "run_card.json").read_text())
        assert (found["box_mode"], found["precision"]) == expected


def test_with_clicks_the_figures_are_of_the_last_one_and_the_clicks_needed_are_told(tuned, tmp_path):
    arguments = ["--data", "data", "--prompt", "clicks:2", "--output", tmp_path / "ev", "--json"]
    said = medsam("evaluate", "--checkpoint", "run", *arguments)
    table = pd.read_csv(tmp_path / "ev" / "metrics.csv")
    means = table.groupby(["model", "prompt"])["dice"].mean()
    by_click = [means["tuned", "clicks:1"], means["tuned", "clicks:2"]]
    assert said.json["dice_by_click"] == pytest.approx(by_click, abs=1e-5)
    assert said.json["dice"] == said.json["dice_by_click"][-1]
    assert said.json["gain"] == pytest.approx(by_click[-1] - means["zero-shot", "clicks:2"], abs=1e-5)
    failed = said.json["click_failures"]
    assert (said.json["clicks_to_90"], said.json["clicks_to_90_iou"], failed) == (2, 2, 4), "of so few epochs"
    told = "tuned needs 2.00 (no interval below 5 images) clicks to Dice 0.90, 2.00 to IoU 0.90; "
    assert told + "images that do not get there, 4 of 4 for Dice, count as 2." in said.out
    assert said.out.count("Worst image of tuned") == 1
    assert json.loads((tmp_path / "ev" / "run_card.json").read_text())["metrics"]["clicks_to_90"] == 2


def test_an_evaluation_may_replace_an_earlier_one_but_no_checkpoint(tuned):
    arguments = ["--checkpoint", "run", "--data", "data", "--output"]
    assert [medsam("evaluate", *arguments, "ev-twice").status for _ in range(2)] == [0, 0]
    before = files_of(Path("run"))
    one_line(medsam("evaluate", *arguments, "run"), "run holds other files")
    assert files_of(Path("run")) == before


def test_runs_are_compared_on_the_same_images_with_a_table_a_picture_and_json(tuned, tmp_path):
    asked = ["--data", "data", "--prompt", "j20", "--split", "train", "--output"]
    for model, folder in ((["--model", "tiny"], "ev-base"), (["--checkpoint", "run"], "ev-tuned")):
        assert medsam("evaluate", *model, *asked, folder).status == 0
    said = medsam("compare", "ev-base", "ev-tuned", "--output", tmp_path / "both", "--json")
    assert said.status == 0, said.err
    assert (said.json["first"], len(said.json["compared"])) == ("ev-base", 2)
    other = said.json["compared"][1]
    assert "Gain of ev-tuned over ev-base, prompt j20: +" in said.out
    assert "7 images; from so few an interval holds the true value about 91 times in 100" in said.out
    assert {path.name for path in (tmp_path / "both").iterdir()} == {"comparison.csv", "comparison.png"}
    first, row = pd.read_csv(tmp_path / "both" / "comparison.csv").to_dict("records")
    assert row["difference"] == pytest.approx(row["dice"] - first["dice"], abs=1e-5)
    names = ("difference", "low", "high")
    assert [other[name] for name in names] == pytest.approx([row[name] for name in names], abs=1e-5)


def test_images_that_the_checkpoint_or_what_it_began_with_has_seen_are_told(tuned, cache, tmp_path):
    said = medsam("evaluate", "--checkpoint", "run", "--data", "data", "--output", tmp_path / "new", "--json")
    assert said.json["seen_before"] == 0
    train = ["--split", "train", "--output", tmp_path / "old", "--json"]
    said = medsam("evaluate", "--checkpoint", "run", "--data", "data", *train)
    assert "7 of these images were trained or selected on: disc-" in said.out
    turned = tmp_path / "turned"  # what the start was trained on is val now
    shutil.copytree("data", turned)
    (turned / "train.txt").rename(turned / "list")
    (turned / "val.txt").rename(turned / "train.txt")
    (turned / "list").rename(turned / "val.txt")
    arguments = ["--data", turned, "--model", "tiny", *TRAINING, "--start", "run", "--json"]
    began = medsam("finetune", *arguments, "--output", tmp_path / "on")
    assert any("run was trained or selected on 8 of the 8 images of val" in line for line in began.err)
    assert began.json["seen_before"] == 8
    assert "8 of which the decoder that it began with had seen" in (tmp_path / "on" / "README.md").read_text()
    said = medsam("evaluate", "--checkpoint", tmp_path / "on", "--data", "data", *train)
    assert said.json["seen_before"] == 7, "inherited"
    (tmp_path / "on" / "seen_images.csv").unlink()
    said = medsam("evaluate", "--checkpoint", tmp_path / "on", "--data", "data", *train)
    assert "whether these images are new to it is unknown" in said.out


def test_a_model_that_needs_no_prompt_is_tried_on_images_without_a_lesion(cache, tmp_path):
    _, other, *_, normal = save_images(draw_discs(6), tmp_path / "data", n_train=4)
    for case in (other, normal):  # of train and of val
        Image.fromarray(np.zeros(case.size_hw, np.uint8)).save(tmp_path / "data" / "masks" / f"{case.name}.png")
    arguments = ["--data", tmp_path / "data", "--empty-masks", "keep", "--json", "--output"]
    told = r"finds something in [01] of 1 images without a lesion, on average \d+\.\d %"
    said = medsam("evaluate", "--model", "unet", *arguments, tmp_path / "ev")
    assert said.json["normal"] == 1
    assert re.search(f"zero-shot {told}", said.out)
    assert "normal" not in medsam("evaluate", "--model", "unet-box", *arguments, tmp_path / "ev-box").json
    for model, boxed in (("with-head", False), ("tiny", True)):
        said = medsam("evaluate", "--model", model, "--prompt", "none", *arguments, tmp_path / "ev-none")
        assert said.json["normal"] == 1
        assert ("zero-shot, which needs one, was given a box round the image" in said.out) == boxed
        assert ("With such a box zero-shot finds something" in said.out) == boxed
    how = ["--model", "unet", "--recipe", "unet", "--epochs", 1]
    figures = medsam("finetune", *how, *arguments, tmp_path / "run").json
    assert (figures["without_lesion"], figures["normal"], figures["n_val"]) == (2, 1, 1)
    assert re.search(f"tuned {told}", summary := (tmp_path / "run" / "summary.md").read_text())
    assert "which no box can be drawn round: 2, neither" in summary


def predicted(*prompt: object, model=("--model", "tiny")) -> tuple[np.ndarray, dict]:
    said = medsam("predict", *model, "--image", "image.png", *prompt, "--output", "masks/new/mask.png", "--json")
    assert said.status == 0, said.err
    return np.asarray(Image.open("masks/new/mask.png")) > 0, said.json


def test_several_boxes_give_the_union_of_their_masks():
    first, second = ["--box", 2, 2, 30, 30], ["--box", 30, 25, 60, 55]
    (one, _), (other, _), (both, said) = predicted(*first), predicted(*second), predicted(*first, *second)
    assert one.any()
    assert (one != other).any()
    np.testing.assert_array_equal(both, one | other)
    assert len(said["iou_score"]) == 2
    assert said["area"] == both.sum()


def test_points_prompt_alone_and_refine_a_box(tuned):
    box, point, background = ["--box", 2, 2, 50, 50], ["--point", 20, 20], ["--background", 45, 45]
    masks = [predicted(*prompt)[0] for prompt in (box, point, [*box, *point], [*box, *background])]
    masks.append(predicted(*box, model=("--checkpoint", "run"))[0])
    assert len({mask.tobytes() for mask in masks}) == 5, "each prompt says something else, and so does a tuned decoder"
    prompts = {"boxes": np.array(box[1:]), "points": np.array([[45, 45]]), "labels": np.array([0])}
    found = Segmenter.load("tiny").predict(read_image("image.png"), **prompts)
    np.testing.assert_array_equal(masks[3], found.masks[0, 0])


def test_without_a_prompt_a_model_with_a_head_finds_the_lesions_of_an_image_and_of_a_folder(tmp_path):
    asked = ["--model", "with-head", "--image"]
    found = Segmenter.load("with-head").predict(read_image("image.png")).masks[0, 0]
    np.testing.assert_array_equal(predicted(model=("--model", "with-head"))[0], found)
    folder, masks = shutil.copytree("data/images", tmp_path / "images"), tmp_path / "masks"
    (folder / "disc-1.png").write_bytes(b"no image")
    (folder / "notes.doc").write_text("a note")
    masks.mkdir()
    Image.new("1", (2, 2)).save(masks / "disc-2.png")
    kept = files_of(masks)
    said = medsam("predict", *asked, folder, "--output", masks, "--json")
    assert (said.status, said.json["written"], said.json["kept"], len(said.json["unreadable"])) == (1, 10, 1, 1)
    assert "disc-1.png: not a readable image" in said.out
    assert "notes.doc" in said.out
    assert kept.items() <= files_of(masks).items()
    assert {path.stem for path in masks.iterdir()} == {f"disc-{index}" for index in range(12)} - {"disc-1"}
    np.testing.assert_array_equal(np.asarray(Image.open(masks / "disc-0.png")) > 0, found)
    Image.open(folder / "disc-3.png").save(folder / "disc-1.png")
    assert medsam("predict", *asked, folder, "--output", masks, "--json").json["written"] == 1, "goes on"
    Image.open(folder / "disc-3.png").save(folder / "disc-3.bmp")
    one_line(medsam("predict", *asked, folder, "--output", masks), "disc-3.bmp, disc-3.png")
    one_line(medsam("predict", *asked, folder, "--output", folder), "name one as --output")


def test_audit_counts_what_it_finds_and_fails_on_errors(place, tmp_path):
    folder = shutil.copytree(place / "data", tmp_path / "data")
    (folder / "images" / "disc-0.png").write_bytes(b"no image")
    (folder / "images" / "notes.doc").write_text("a note")
    said = medsam("audit", folder, "--json")
    assert said.status == 1
    assert said.json == {"exit_status": 1, "errors": 1, "warnings": 1, "notes": 0}
    assert "unreadable" in said.out


def test_of_several_processes_the_first_one_speaks(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    assert main(["weights", "--json"]) == 0
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("RANK", "0")
    assert main(["weights", "--json"]) == 0
    assert "mobile-sam" in capsys.readouterr().out


def test_every_command_explains_itself(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    overview = medsam("--help").out
    for name in COMMANDS:
        assert medsam(name, "--help").out.startswith(f"usage: medsam {name}")
        assert build_parser().parse_args([name, *COMMANDS[name].EXAMPLE.split()]).command == name
        assert name in overview


@pytest.mark.skipif(torch.cuda.is_available(), reason="fp16 is what a GPU computes in")
def test_a_warning_is_one_line_and_leaves_the_process_as_it_was():
    before = warnings.showwarning
    said = medsam("evaluate", "--data", "data", "--model", "tiny", "--precision", "fp16")
    told = f"medsam: warning: fp16 needs CUDA; on {Segmenter.load('tiny').device.type} this runs in fp32"
    assert [line for line in said.err if "fp16" in line] == [told]
    assert json.loads(Path("runs/evaluate/run_card.json").read_text())["precision"] == "fp32"
    assert warnings.showwarning is before


def test_two_that_ask_for_the_same_run_at_once_train_it_once(place, monkeypatch):
    trained, asked, real = [], Semaphore(0), engine.finetune
    config = RunConfig(model="tiny", data=str(place / "data"), epochs=1, precision="fp32", **FEW)

    class Lock(FileLock):
        def acquire(self, *arguments, **options):
            asked.release()
            return super().acquire(*arguments, **options)

    def finetune(*arguments):
        trained.append(1)
        assert all(asked.acquire(timeout=60) for _ in range(2)), "the other has come too"
        return real(*arguments)

    monkeypatch.setattr(engine, "FileLock", Lock)
    monkeypatch.setattr(engine, "finetune", finetune)
    with ThreadPoolExecutor(2) as both:
        first, second = both.map(lambda _: get_or_train(config, False), range(2))
    assert first == second
    assert len(trained) == 1


PREDICT = "predict --model tiny --image image.png "
TRAIN = "finetune --data data --model tiny "

WRONG = [
    ("finetune --data data --epoch-count 3", "unrecognized arguments: --epoch-count 3"),
    ("evaluate --data data", "pass either --model or --checkpoint"),
    ("finetune --data data --start nowhere --output new", "checkpoint nowhere is no folder that exists"),
    ("weights sam", "checkpoint 'sam' is unknown: use mobile-sam"),
    ("reproduce nope", "no experiment 'nope': there are across, "),
    (TRAIN + "--epochs -1 --output new", "epochs must be greater than or equal to 1, is '-1'"),
    (TRAIN + "--train-limit 0 --output new", "train has none"),
    ("evaluate --data data --model tiny --val-limit 0 --output new", "the split val is empty"),
    ("evaluate --data data --model tiny --prompt clicks:2 --tta", "leave out --tta"),
    ("predict --model tiny --image data/images --output new", "or a checkpoint of --recipe automatic"),
    ("predict --model with-head --image data --output new", "left out: data/images: a folder of 12 files"),
    ("predict --model with-head --image data/images --output new --box 1 1 9 9", "pass a single image"),
    (PREDICT + "--background 3 3", "no prompt: pass --box"),
    (PREDICT + "--box 1 1 9 9 --box 5 5 20 20 --point 3 3", "points refine one box"),
    ("predict --model tiny --image nope.png --box 1 1 9 9", "nope.png: there is no such file"),
    (PREDICT + "--box 1 1 9 9 --output mask.jpg", "name a file that ends in .png"),
    (PREDICT + "--box 1 1 9 9 --output ./data/../image.png", "is the image itself"),
    (TRAIN + "--output file/new", "file/new cannot be a folder"),
]


@pytest.mark.parametrize(("arguments", "expected"), WRONG, ids=[f"{line}" for line, _ in WRONG])
def test_a_mistake_is_one_line_that_helps_and_leaves_nothing(place, arguments, expected):
    # The cache and earlier tests' results are none of the command's business.
    before = {path for path in place.rglob("*") if "cache" not in path.parts}
    one_line(medsam(*arguments.split()), expected)
    assert {path for path in place.rglob("*") if "cache" not in path.parts} == before


def test_a_read_only_place_is_one_line(tmp_path):
    # The superuser may write anywhere but where the kernel itself says no.
    folder = tmp_path if os.geteuid() else Path("/proc")
    folder.chmod(0o500) if os.geteuid() else None
    for arguments in (TRAIN, "evaluate --data data --model tiny", PREDICT + "--box 1 1 9 9"):
        one_line(medsam(*arguments.split(), "--output", folder / "new.png"), str(folder))


def test_bad_files_are_listed_before_anything_is_done_and_can_be_left_out(place, tmp_path):
    folder = shutil.copytree(place / "data", tmp_path / "bad")
    (folder / "images" / "disc-2.png").write_bytes(b"no image")
    (folder / "masks" / "disc-9.png").unlink()
    Image.new("L", (5, 5), 255).save(folder / "masks" / "disc-3.png")
    arguments = ["finetune", "--data", folder, "--model", "tiny", "--output", tmp_path / "new", "--epochs", 1, "--json"]
    said = medsam(*arguments)
    assert said.err[0].startswith("medsam: bad: 3 bad cases; mend them, or leave them out with skip_bad (--skip-bad)")
    assert len(said.err) == 4, "a line a file below the first"
    bad = ["disc-2", "disc-3", "disc-9"]
    assert all(name in "".join(said.err[1:]) for name in bad)
    assert not (tmp_path / "new").exists()

    said = medsam(*arguments, "--skip-bad")
    left_out = said.json["left_out"]
    assert sorted(re.search(r"disc-\d", text)[0] for text in left_out) == bad
    assert "left out 3: " in said.out
    assert said.json["n_train"] + said.json["n_dev"] + said.json["n_val"] == 9
    card = json.loads((tmp_path / "new" / "run_card.json").read_text())
    assert card["metrics"]["left_out"] == left_out
    shared = {key: value for key, value in card.items() if key != "base_path"}
    texts = [json.dumps(shared), *((tmp_path / "new" / name).read_text() for name in ("README.md", "summary.md"))]
    assert not any(str(tmp_path) in text for text in texts), "what is shared does not tell of somebody's folders"


PROGRAM = [sys.executable, "-m", "medsam_helpers"]


def test_a_typo_costs_no_import_of_torch():
    script = "import sys; from medsam_helpers.cli.main import main; status = main(sys.argv[1:]); "
    script += "print(status, 'torch' in sys.modules)"
    arguments = ["finetune", "--data", "data", "--model", "mobil-sam"]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert done.stdout == "2 False\n", done.stderr
    assert done.stderr.startswith("medsam: no model 'mobil-sam'")


def test_the_module_runs_and_gives_its_exit_status():
    done = subprocess.run([*PROGRAM, "weights", "--list", "--json"], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert json.loads(done.stdout.splitlines()[-1]) == {"checkpoints": list(WEIGHTS)}
    done = subprocess.run([*PROGRAM, "finetune"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "medsam: the following arguments are required: --data (see `medsam finetune --help`)\n"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to send")
def test_an_interrupted_run_says_so_in_one_line_and_goes_on_when_called_again(place, tmp_path):
    arguments = ["finetune", "--data", "data", "--model", "tiny", "--precision", "fp32"]
    arguments += ["--batch", 1, "--epochs", 10, "--output", tmp_path / "run", "--json"]
    state = tmp_path / "run" / STATE_FILE
    command = [*PROGRAM, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (state.exists() and len(stored_run(state)["history"]) > 1):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    # What a scheduler sends; Ctrl-C takes the same way from here on.
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, ""), err
    assert without_bars(err)[-1] == "medsam: interrupted; the same command goes on from here"
    assert "Traceback" not in err
    assert len(re.split(r"[\r\n]+", err)) < 15, "a bar in a log is a line now and then"
    done = stored_run(state)["history"]
    assert 2 <= len(done) < 11, "it was stopped in the middle"
    assert [path.name for path in (tmp_path / "run").iterdir()] == [STATE_FILE], "nothing half-written"

    said = medsam(*arguments)
    assert said.status == 0, said.err
    history = stored_run(state)["history"]
    assert len(history) == 11
    # Seconds and losses of the epochs before the stop: they were not trained again. Epoch 0 has no loss.
    assert history[1 : len(done)] == done[1:]
    assert said.json["n_val"] == 4
    assert not math.isnan(said.json["tuned_dice"])


def test_names_are_text_on_every_page_picture_and_terminal(tmp_path):
    """A terminal that knows ASCII only."""
    data = tmp_path / "<b>λ $x$ `"
    save_images(draw_discs(5), data)
    for part in ("images", "masks"):
        (data / part / "disc-0.png").rename(data / part / "λ $x$ <i>.png")
    arguments = ["finetune", "--data", data, "--model", "tiny", "--epochs", 1, "--output", tmp_path / "run"]
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with contextlib.redirect_stdout(terminal), contextlib.redirect_stderr(terminal):
        assert main([*map(str, arguments)]) == 0
    terminal.flush()
    assert rb"\u03bb $x$" in terminal.buffer.getvalue()
    for page in ("README.md", "summary.md"):
        text = (tmp_path / "run" / page).read_text(encoding="utf-8")
        assert "&lt;b&gt;" in text
        assert not re.search(r"<[bi]>", re.sub(r"`[^`]*`", "", text)), page
    assert (tmp_path / "run" / "before_after.png").exists()


def test_track_writes_a_mask_a_frame_and_what_became_of_it(place):
    (place / "frames").mkdir()
    for number in range(6):
        Image.fromarray(np.full((40, 60, 3), 30 * number, np.uint8)).save(place / "frames" / f"f{number}.png")
    asked = ["track", "--model", place / "tiny", "--box", 5, 5, 50, 35, "--frame", 2]
    said = medsam(*asked, "--frames", place / "frames", "--output", place / "first", "--json")
    assert (said.status, said.json["frames"]) == (0, 6), said.err
    truth = ["--truth", place / "first" / "masks"]
    again = medsam(*asked, "--frames", place / "frames", *truth, "--output", place / "followed", "--json").json[
        "scores"
    ]
    assert {again["dice"], again["rightly_empty"]} <= {1.0, None}
    told = json.loads((place / "followed" / "track.json").read_text())
    assert [row["frame"] for row in told["frames"]] == list(range(6))
    assert told["frames"][2]["score"] == 1
    for row in told["frames"]:
        area = np.count_nonzero(Image.open(place / "followed" / "masks" / f"{Path(row['file']).stem}.png"))
        assert (area, area == 0) == (row["area"], row["lost"])
    assert (place / "followed" / "overlay.mp4").stat().st_size > 1000
    for given, expected in (
        (["--frames", place / "frames", "--frame", 99, "--box", 5, 5, 50, 35], "frames 0 to 5"),
        (["--frames", place / "frames", "--frame", 3], "give each --frame one --box"),
        ([], "either --video or --frames"),
        (["--frames", place / "frames", "--truth", place / "data" / "masks"], "no reference of f0, f1, f2"),
        (["--video", place / "file"], "cannot be read as a video"),
        (["--frames", place / "frames", "--memory"], "this model has no memory"),
    ):
        one_line(medsam(*asked, *given, "--output", place / "nowhere"), expected)
    assert not (place / "nowhere").exists()
