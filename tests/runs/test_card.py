"""Run cards: complete, and silent about whose machine it was."""

import json
import socket
import subprocess
from pathlib import Path

import pytest

from medsam_helpers.runs.card import git_commit, write_run_card


def write(path, **changes):
    settings = {"command": ["medsam", "finetune"], "data_digest": "ab12", "seconds": 1.234} | changes
    return write_run_card(path, **settings)


def test_card_says_what_ran_where_and_how_long(tmp_path):
    card = write(tmp_path / "run_card.json", tuned_dice=0.9, recipe={"lr": 1e-4})
    assert json.loads((tmp_path / "run_card.json").read_text()) == card
    assert (card["command"], card["data_digest"], card["seconds"]) == ("medsam finetune", "ab12", 1.2)
    assert (card["tuned_dice"], card["recipe"]) == (0.9, {"lr": 1e-4})
    assert set(card["versions"]) == {"python", "torch", "transformers", "monai", "accelerate", "numpy"}
    assert card["machine"]["cpu"]
    assert socket.gethostname() not in [*card.values(), *card["machine"].values()]
    assert card["date"].endswith("+00:00")


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (["python", "/home/ann/code/benchmarks/coordinate_space_bug.py"], "python benchmarks/coordinate_space_bug.py"),
        (["medsam", "--data=/srv/a/b/kvasir seg"], "medsam '--data=b/kvasir seg'"),
        (f"medsam --data {Path.home()}/sets/polyps --lr 1e-4", "medsam --data sets/polyps --lr 1e-4"),
        ("medsam --data ~/sets/polyps", "medsam --data sets/polyps"),
        (["medsam", "--data", r"C:\Users\ann\sets\polyps"], "medsam --data sets/polyps"),
        ("medsam --hub http://127.0.0.1:80/x", "medsam --hub http://127.0.0.1:80/x"),
    ],
)
def test_command_tells_of_nobodys_folders(tmp_path, given, shown):
    assert write(tmp_path / "card.json", command=given)["command"] == shown


def test_commit_is_marked_dirty_after_a_change_and_unknown_without_a_repository(tmp_path):
    def git(*arguments):
        begin = ["git", "-C", tmp_path, "-c", "user.name=t", "-c", "user.email=t@example.org"]
        return subprocess.run([*begin, *arguments], check=True, capture_output=True, text=True)

    assert git_commit(tmp_path) == "unknown"
    git("init")
    (tmp_path / "notebooks").mkdir()
    for name in ("code.py", "notebooks/result.csv"):
        (tmp_path / name).write_text("1\n")
    git("add", ".")
    git("commit", "-m", "one")
    commit = git("rev-parse", "HEAD").stdout.strip()
    (tmp_path / "notebooks" / "result.csv").write_text("2\n")
    assert git_commit(tmp_path) == commit
    (tmp_path / "code.py").write_text("2\n")
    assert git_commit(tmp_path) == commit + "+dirty"
    (tmp_path / "installed").mkdir()
    assert git_commit(tmp_path / "installed") == "unknown"
