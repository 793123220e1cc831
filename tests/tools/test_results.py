"""RESULTS.md, README.md and docs/: numbers are what the records say, links lead somewhere, the README stays short."""

import re
from pathlib import Path

import pandas as pd
import pytest
import results

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "RESULTS.md", "CONTRIBUTING.md")] + sorted((ROOT / "docs").glob("*.md"))


def test_results_and_the_table_of_the_readme_are_what_the_records_say(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["results.py", "--check"])
    assert results.main() == 0, capsys.readouterr().out


def test_no_score_is_typed_by_hand():
    computed = re.sub(r"(?s)\{\{.*?\}\}|\{%.*?%\}", "", results.TEMPLATE.read_text())
    typed = {"RESULTS.md.jinja": computed}
    typed |= {page.name: page.read_text() for page in PAGES if page.name != "RESULTS.md"}
    readme = typed["README.md"]
    assert readme.count(results.BEGIN) == readme.count(results.END) == 1
    typed["README.md"] = readme[: readme.index(results.BEGIN)] + readme[readme.index(results.END) :]
    scores = {name: re.findall(r"(?<![\w.])0\.\d{2,}", text) for name, text in typed.items()}
    assert {name: found for name, found in scores.items() if found} == {}


def test_the_readme_is_read_in_a_few_minutes():
    assert len((ROOT / "README.md").read_text().split()) <= 900


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_the_pages_lead_to_files_that_are_there(page):
    targets = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_means_and_gains_are_those_of_the_images_with_seeds_averaged_first(tmp_path, monkeypatch):
    rows = [("a", "zero-shot", "", 0, 0.6), ("b", "zero-shot", "", 0, 0.8), ("a", "tuned", "mine", 0, 0.7)]
    rows += [("b", "tuned", "mine", 0, 0.8), ("a", "tuned", "mine", 1, 0.9), ("b", "tuned", "mine", 1, 0.8)]
    table = pd.DataFrame(rows, columns=["case", "model", "run", "train_seed", "dice"])
    (tmp_path / "record").mkdir()
    everywhere = {"prompt": "j20", "tested_on": "kvasir", "base": "mobile-sam"}
    table.assign(**everywhere).to_csv(tmp_path / "record" / "metrics.csv", index=False)
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    assert [results.dice(f"record: {name}") for name in ("mine", "mine #0")] == ["0.800", "0.750"]
    assert results.gain("record: mine", "record: mobile-sam zero-shot") == "+0.100 [+0.000, +0.200]"
    with pytest.raises(KeyError, match="nothing of 'record: yours'"):
        results.dice("record: yours")
