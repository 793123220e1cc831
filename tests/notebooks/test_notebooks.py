"""The contract of the notebooks, read from their files; and each rule of it against a notebook that breaks it."""

import base64
import re
import subprocess
import sys
from functools import cache

import nbformat
import notebook_rules as rules
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from medsam_helpers.exercises.checking import exercises

ROOT = rules.ROOT
WRITTEN = [ROOT / "notebooks" / name for name in rules.SERIES]
SOLVED = [ROOT / "notebooks" / name for name in rules.SOLUTIONS]

SHARED_RULES = [
    rules.executed,
    rules.short_cells,
    rules.only_known_tags,
    rules.ignored_cells_are_asserted,
    rules.clean_outputs,
    rules.no_machine_in_it,
    rules.figures_print_their_number,
    rules.numbers_are_printed,
]


def read(path):
    return nbformat.read(path, as_version=4)


@cache
def defined_in(path):
    return rules.definitions(read(path))


def by_file(paths):
    return pytest.mark.parametrize("path", paths, ids=[path.stem for path in paths])


@by_file(WRITTEN + SOLVED)
def test_notebook_keeps_the_rules(path):
    notebook = read(path)
    complaints = {rule.__name__: rule(notebook) for rule in SHARED_RULES}
    complaints["links_resolve"] = rules.links_resolve(notebook, path.parent)
    # A notebook and its own solutions share the names of the functions that exercises ask for.
    others = [other for other in WRITTEN + SOLVED if other.name[:2] != path.name[:2]]
    elsewhere = dict(rules.package_definitions(ROOT / "medsam_helpers"))
    elsewhere |= {name: other.name for other in others for name in defined_in(other)}
    complaints["defined_once"] = rules.defined_once(notebook, elsewhere)
    assert {rule: said for rule, said in complaints.items() if said} == {}


@by_file(WRITTEN)
def test_notebook_follows_the_template(path):
    notebook = read(path)
    assert rules.template_order(notebook) == []
    assert rules.parts_are_whole(notebook, path.name) == []


@by_file(WRITTEN)
def test_exercises_are_left_to_the_reader_and_solved_in_the_solutions(path):
    number = path.name[:2]
    assert rules.exercises_say(read(path), number, "not attempted yet", set(exercises(number))) == []
    solutions = path.parent / "solutions" / f"{number}_solutions.ipynb"
    assert rules.exercises_say(read(solutions), number, "correct", set(exercises(number))) == []


# The rules themselves: a notebook that keeps them all, and for each a change that it must notice.


def complaints(rule, notebook):
    others = {
        "links_resolve": [ROOT / "notebooks"],
        "parts_are_whole": [rules.SERIES[1]],
        "defined_once": [{"dice_loss": "losses.py"}],
        "exercises_say": ["01", "not attempted yet", exercises().keys()],
    }
    return getattr(rules, rule)(notebook, *others.get(rule, []))


def printed(text, name="stdout"):
    return new_output("stream", name=name, text=text)


def picture(data):
    return new_output("display_data", {"image/png": base64.b64encode(data).decode()})


def prose(old, new):
    """Change the text of the markdown cells."""

    def change(notebook):
        cells = [cell for cell in notebook.cells if cell.cell_type == "markdown" and re.search(old, cell.source)]
        assert cells
        for cell in cells:
            cell.source = re.sub(old, new, cell.source)

    return change


def cell(**values):
    """Give the last code cell another source, outputs, count or metadata."""
    return lambda notebook: rules.code_cells(notebook)[-1].update(values)


def ignore_all(notebook):
    for one in rules.code_cells(notebook):
        one.update(source="assert x", metadata=IGNORED)


IGNORED = {"tags": ["nbval-ignore-output"]}
ERROR = new_output("error", ename="ValueError", evalue="no", traceback=["no"])
BREAKS = [
    ("executed", cell(execution_count=None)),
    ("short_cells", cell(source="a = 1\n" * 26)),
    ("only_known_tags", cell(source="# NBVAL_IGNORE_OUTPUT\nrun()")),
    ("ignored_cells_are_asserted", cell(source="print(1)", metadata=IGNORED)),
    ("ignored_cells_are_asserted", ignore_all),
    ("clean_outputs", cell(outputs=[ERROR])),
    ("clean_outputs", cell(outputs=[printed("FutureWarning: soon\n", "stderr")])),
    ("no_machine_in_it", cell(outputs=[printed("saved in /home/ada/runs\n")])),
    ("figures_print_their_number", cell(outputs=[picture(b"small")])),
    ("figures_print_their_number", cell(outputs=[printed("1\n"), picture(bytes(1_300_000))])),
    ("numbers_are_printed", prose("## Quiz", "It scored 0.98765.\n\n## Quiz")),
    ("links_resolve", prose("## Quiz", "[lost](09_lost.ipynb)\n\n## Quiz")),
    ("template_order", prose("## Objectives", "## Aims")),
    ("template_order", lambda notebook: notebook.cells.insert(0, notebook.cells.pop())),
    ("parts_are_whole", prose(r"\]\(00_start_here.ipynb\)", "](05_evaluate_the_model.ipynb)")),
    ("parts_are_whole", prose("## 2. ", "## 4. ")),
    ("parts_are_whole", prose("## What you learned\n\n- ", "## What you learned\n\nAnd ")),
    ("defined_once", cell(source="def dice_loss():\n    return None")),
    ("exercises_say", cell(outputs=[printed("01.1: correct\n")])),
]


@pytest.mark.parametrize(("rule", "change"), BREAKS, ids=[f"{rule}-{n}" for n, (rule, _) in enumerate(BREAKS)])
def test_each_rule_notices_what_breaks_it(rule, change):
    notebook = read(WRITTEN[1])
    assert complaints(rule, notebook) == []
    change(notebook)
    assert complaints(rule, notebook) != []


def test_strict_nbval_fails_on_a_doctored_output(tmp_path):
    """With this project's conftest and settings: two right outputs, then the same two with one digit changed."""
    cells = []
    for digits in ("0.67", "0.68"):
        cells += [
            new_code_cell("print(f'Dice {2 / 3:.2f}')", outputs=[printed(f"Dice {digits}\n")]),
            new_code_cell("round(2 / 3, 2)", outputs=[new_output("execute_result", {"text/plain": digits})]),
        ]
    for count, one in enumerate(cells, 1):
        one.execution_count = count
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), tmp_path / "small.ipynb")
    settings = ["-p", "conftest", "-p", "no:cacheprovider", "-c", "pyproject.toml", "-v", "--nbval"]
    command = [sys.executable, "-m", "pytest", *settings, tmp_path / "small.ipynb"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    verdicts = re.findall(r"::Cell \d (PASSED|FAILED)", result.stdout)
    assert verdicts == ["PASSED", "PASSED", "FAILED", "FAILED"], result.stdout
