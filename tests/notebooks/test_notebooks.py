"""The contract of the notebooks, read from their files; and each rule of it against a notebook that breaks it."""

import re
import subprocess
import sys

import nbformat
import notebook_rules as rules
import pandas as pd
import pytest
import yaml
from IPython.core.inputtransformer2 import TransformerManager
from nbformat.v4 import new_code_cell, new_notebook, new_output


@pytest.mark.parametrize("path", rules.WRITTEN + rules.SOLVED, ids=lambda path: path.stem)
def test_notebook_keeps_the_rules(path):
    assert rules.complaints_of(path) == {}


def printed(text, name="stdout"):
    return new_output("stream", name=name, text=text)


def prose(old, new):
    """Change the text of the markdown cells."""

    def change(notebook):
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = re.sub(old, new, cell.source)

    return change


def last(**values):
    """Give the last code cell another source, outputs, count or metadata."""
    return lambda notebook: rules.code_cells(notebook)[-1].update(values)


def ignore_all(notebook):
    for cell in rules.code_cells(notebook):
        cell.update(source="assert x", metadata=IGNORED)


def picture(characters):
    return new_output("display_data", {"image/png": "A" * characters})


IGNORED = {"tags": [rules.IGNORED]}
ERROR = new_output("error", ename="ValueError", evalue="no", traceback=["no"])
BREAKS = [
    (rules.executed, last(execution_count=None)),
    (rules.short_cells, last(source="a = 1\n" * 26)),
    (rules.within_the_budgets, prose("## Quiz", "word " * 3000 + "\n\n## Quiz")),
    (rules.within_the_budgets, prose(r"\*\*Your turn", "**Yours")),
    (rules.only_known_tags, last(source="# NBVAL_IGNORE_OUTPUT\nrun()")),
    (rules.only_known_tags, last(metadata={"tags": ["nbval-skip"]})),
    (rules.ignored_cells_are_asserted, last(source="print(1)", metadata=IGNORED)),
    (rules.ignored_cells_are_asserted, ignore_all),
    (rules.clean_outputs, last(outputs=[ERROR])),
    (rules.clean_outputs, last(outputs=[printed("FutureWarning: soon\n", "stderr")])),
    (rules.no_machine_in_it, last(outputs=[printed("saved in /home/ada/runs\n")])),
    (rules.figures_print_their_number, last(outputs=[picture(8)])),
    (rules.figures_print_their_number, last(outputs=[printed("1\n"), picture(1_700_000)])),
    (rules.numbers_are_printed, prose("## Quiz", "It scored 0.98765.\n\n## Quiz")),
    (rules.links_resolve, prose("## Quiz", "[lost](09_lost.ipynb)\n\n## Quiz")),
    (rules.template, prose("## Objectives", "## Aims")),
    (rules.template, lambda notebook: notebook.cells.insert(0, notebook.cells.pop())),
    (rules.template, prose(r"\]\(00_start_here.ipynb\)", "](05_evaluate_the_model.ipynb)")),
    (rules.template, prose("## 2. ", "## 4. ")),
    (rules.template, prose("## What you learned\n\n- ", "## What you learned\n\nAnd ")),
    (rules.defined_once, last(source="def dice_loss():\n    return None")),
    (rules.exercises_say, last(outputs=[printed("01.1: correct\n")])),
]


@pytest.mark.parametrize(("rule", "change"), BREAKS, ids=[f"{rule.__name__}-{n}" for n, (rule, _) in enumerate(BREAKS)])
def test_each_rule_notices_what_breaks_it(rule, change):
    path = rules.WRITTEN[-1 if rule is rules.within_the_budgets else 1]  # the last is held to the budgets
    notebook = rules.read(path)
    assert rule(notebook, path) == []
    change(notebook)
    assert rule(notebook, path) != []


def test_strict_nbval_fails_on_a_doctored_output(tmp_path):
    """With this project's conftest and settings: two right outputs, then the same two with one digit changed."""
    cells = []
    for digits in ("0.67", "0.68"):
        shown = printed(f"Dice {digits}\n"), new_output("execute_result", {"text/plain": digits})
        sources = "print(f'Dice {2 / 3:.2f}')", "round(2 / 3, 2)"
        cells += [new_code_cell(source, outputs=[out]) for source, out in zip(sources, shown, strict=True)]
    for count, cell in enumerate(cells, 1):
        cell.execution_count = count
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), tmp_path / "small.ipynb")
    settings = ["-p", "conftest", "-p", "no:cacheprovider", "-c", "pyproject.toml", "-v", "--nbval"]
    command = [sys.executable, "-m", "pytest", *settings, tmp_path / "small.ipynb"]
    result = subprocess.run(command, cwd=rules.ROOT, capture_output=True, text=True, check=False)
    verdicts = re.findall(r"::Cell \d (PASSED|FAILED)", result.stdout)
    assert verdicts == ["PASSED", "PASSED", "FAILED", "FAILED"], result.stdout


# What others published, as the notebooks show it.
PUBLISHED = rules.ROOT / "notebooks" / "results" / "published"


def test_every_row_names_its_source():
    tables = [pd.read_csv(path, dtype=str) for path in PUBLISHED.glob("medsam_*.csv")]
    assert pd.concat(tables)["source"].str.contains(r"doi:10\.|arXiv:\d{4}\.\d{5}|model card").all()


def test_derived_scores_are_the_stated_one_less_the_stated_difference():
    table = pd.read_csv(PUBLISHED / "medsam_dice.csv")
    assert table["derived"].any()
    for row in table[table["derived"]].itertuples():
        (stated,) = table[(table["task"] == row.task) & ~table["derived"]]["dice"]
        assert row.dice == pytest.approx(stated - float(re.search(r"(\d+\.\d) below", row.source)[1]))


# The first cell of notebook 00, for hosted notebooks.
CELL = rules.code_cells(rules.read(rules.WRITTEN[0]))[0].source
ADDRESS = CELL.partition('REPOSITORY = "')[2].partition('"')[0]


def test_a_hosted_notebook_without_an_address_asks_for_one(monkeypatch):
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    absent = CELL.replace('find_spec("medsam_helpers")', 'find_spec("not_installed")')
    plain = TransformerManager().transform_cell(absent)  # a magic or shell line would be an error here
    with pytest.raises(AssertionError, match="repository's address"):
        exec(plain.replace(ADDRESS, "https://github.com/OWNER/NAME"), {})
    with pytest.raises(NameError, match="get_ipython"):  # the shell is called once there is an address
        exec(plain.replace(ADDRESS, "https://example.org/a/b"), {})


def test_the_cell_has_the_address_that_the_citation_has():
    known = yaml.safe_load((rules.ROOT / "CITATION.cff").read_text()).get("repository-code")
    assert (known or "https://github.com/OWNER/NAME") == ADDRESS
