"""The contract of the notebooks, read from their files; and each rule of it against a notebook that breaks it."""

import base64
import re
import subprocess
import sys

import nbformat
import notebook_rules as rules
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from medsam_helpers.exercises import CHECKERS

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


def by_file(paths):
    return pytest.mark.parametrize("path", paths, ids=[path.stem for path in paths])


@by_file(WRITTEN + SOLVED)
def test_notebook_keeps_the_rules(path):
    notebook = read(path)
    complaints = {rule.__name__: rule(notebook) for rule in SHARED_RULES}
    complaints["links_resolve"] = rules.links_resolve(notebook, path.parent)
    # A notebook and its own solutions share the names of the functions that exercises ask for.
    elsewhere = rules.package_definitions(ROOT / "medsam_helpers")
    for other in WRITTEN + SOLVED:
        if other.name[:2] != path.name[:2]:
            elsewhere |= dict.fromkeys(rules.definitions(read(other)), other.name)
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
    assert rules.exercises_say(read(path), number, "not attempted yet", CHECKERS.keys()) == []
    solutions = path.parent / "solutions" / f"{number}_solutions.ipynb"
    assert rules.exercises_say(read(solutions), number, "correct", CHECKERS.keys()) == []


# The rules themselves: one notebook that keeps them all, and for each a change that it must notice.

PICTURE = base64.b64encode(b"a picture").decode()


markdown = new_markdown_cell


def code(source, *outputs, tags=()):
    return new_code_cell(source, outputs=list(outputs), metadata={"tags": list(tags)} if tags else {})


def printed(text):
    return new_output("stream", name="stdout", text=text)


def drawn():
    return new_output("display_data", {"image/png": PICTURE, "text/plain": "<Figure size 640x480 with 1 Axes>"})


def good_notebook():
    """Every part once, all rules kept."""
    notebook = new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        cells=[
            markdown(
                "# 01 Losses\nA promise. [Back](00_start_here.ipynb), [on](02_explore_the_dataset.ipynb)\n\n"
                "> Minutes: 1 on a CPU, 1 on a GPU. Not for clinical use."
            ),
            markdown("## Objectives\n- Explain a\n- Build b\n- Compare c"),
            code("draw()", drawn(), printed("Dice 0.87\n")),
            code("config = config_from_environment()\nprint(config)", printed("model mobile-sam\n")),
            markdown("## 1. One\n> **Pitfall.** It was 0.87 in 2016, see `x_9 = 0.3` and $$y = 0.25$$"),
            code("time_it()", printed("3.7 s\n"), tags=["nbval-ignore-output"]),
            code("assert seconds < 9"),
            markdown("## 2. Two\nOf 1,024 pixels 90 % (arXiv:1708.02002, eq. 14, #6923), fp16, 01.2."),
            code("print(n)", printed("1024 and 90.0\n")),
            markdown("## 3. Three"),
            markdown("## Exercises"),
            code("def solve():\n    return None\n\n\ncheck('01.1', solve)", printed("01.1: not attempted yet\n")),
            code("check('01.2', None)", printed("01.2: not attempted yet\n")),
            markdown("## What you learned\n- a\n- b\n- c\n\n## Quiz\n" + "<details>0.87</details>\n" * 3),
            markdown("## References\nSomebody, 2016, pages 565-571. Next: [02](02_explore_the_dataset.ipynb)"),
        ],
    )
    for count, cell in enumerate(rules.code_cells(notebook), 1):
        cell.execution_count = count
    return notebook


IDS = {"01.1", "01.2", "02.1"}
OTHERS = {"dice_loss": "losses.py"}


def complaints(notebook):
    return {
        **{rule.__name__: rule(notebook) for rule in SHARED_RULES},
        "links_resolve": rules.links_resolve(notebook, ROOT / "notebooks"),
        "template_order": rules.template_order(notebook),
        "parts_are_whole": rules.parts_are_whole(notebook, "01_segmentation_losses.ipynb"),
        "defined_once": rules.defined_once(notebook, OTHERS),
        "exercises_say": rules.exercises_say(notebook, "01", "not attempted yet", IDS),
    }


def test_a_good_notebook_gives_no_complaint():
    nbformat.validate(good_notebook())
    assert not any(complaints(good_notebook()).values())


def prose(place, old, new):
    """Change the text of a markdown cell."""

    def change(notebook):
        cell = [cell for cell in notebook.cells if cell.cell_type == "markdown"][place]
        assert old in cell.source
        cell.source = cell.source.replace(old, new)

    return change


def cell(*places, **values):
    """Give code cells another source, outputs, count or metadata."""

    def change(notebook):
        for place in places:
            rules.code_cells(notebook)[place].update(values)

    return change


def move(start, end):
    return lambda notebook: notebook.cells.insert(end, notebook.cells.pop(start))


IGNORED = {"tags": ["nbval-ignore-output"]}
ERROR = new_output("error", ename="ValueError", evalue="no", traceback=["no"])
LARGE = new_output("display_data", {"image/png": base64.b64encode(bytes(1_300_000)).decode()})
BREAKS = [
    ("executed", cell(1, execution_count=None)),
    ("short_cells", cell(1, source="a = 1\n" * 26)),
    ("only_known_tags", cell(1, metadata={"tags": ["nbval-skip"]})),
    ("only_known_tags", cell(1, source="# NBVAL_IGNORE_OUTPUT\nrun()")),
    ("ignored_cells_are_asserted", cell(3, source="print(1)")),
    ("ignored_cells_are_asserted", cell(0, 1, 2, source="assert x", metadata=IGNORED)),
    ("clean_outputs", cell(1, outputs=[ERROR])),
    ("clean_outputs", cell(1, outputs=[new_output("stream", name="stderr", text="FutureWarning: soon\n")])),
    ("clean_outputs", cell(1, outputs=[printed("line\n" * 41)])),
    ("no_machine_in_it", cell(1, outputs=[printed("saved in /home/ada/runs\n")])),
    ("no_machine_in_it", cell(1, outputs=[printed("<object at 0x7f3a5c2b10>\n")])),
    ("figures_print_their_number", cell(0, outputs=[drawn()])),
    ("figures_print_their_number", cell(0, outputs=[printed("1\n"), LARGE])),
    ("numbers_are_printed", prose(3, "1,024", "1,025")),
    ("numbers_are_printed", prose(2, "0.87", "`0.88` or $0.88$")),
    ("numbers_are_printed", prose(2, "in 2016", "2016.5")),
    ("links_resolve", prose(7, "02_explore_the_dataset.ipynb", "02_explore.ipynb")),
    ("template_order", prose(1, "## Objectives", "## Aims")),
    ("template_order", move(2, 5)),
    ("parts_are_whole", prose(0, "](00_start_here.ipynb)", "](05_evaluate_the_model.ipynb)")),
    ("parts_are_whole", prose(3, "## 2. Two", "## 4. Two")),
    ("parts_are_whole", prose(2, "Pitfall", "Beware")),
    ("parts_are_whole", prose(6, "- c\n", "")),
    ("parts_are_whole", cell(1, outputs=[printed("one\ntwo\n")])),
    ("defined_once", cell(5, source="def dice_loss():\n    return None")),
    ("defined_once", cell(6, source="def solve():\n    return None")),
    ("exercises_say", cell(5, outputs=[printed("01.1: correct\n")])),
    ("exercises_say", cell(5, outputs=[])),
]


@pytest.mark.parametrize(("rule", "change"), BREAKS, ids=[f"{rule}-{n}" for n, (rule, _) in enumerate(BREAKS)])
def test_each_rule_notices_what_breaks_it(rule, change):
    notebook = good_notebook()
    change(notebook)
    assert complaints(notebook)[rule] != []


def test_each_rule_is_broken_once_at_least():
    assert {rule for rule, _ in BREAKS} == complaints(good_notebook()).keys()


# Stored outputs are compared for real: nbval, with this project's conftest and settings, on a notebook and on a copy of
# it with one digit changed in each of its outputs.


def small_notebook(digits):
    """Four cells; `digits` stand in what the last three show: as a stream, a result, a table."""
    text = {"text/plain": "<IPython.core.display.HTML object>", "text/html": f"<b>{digits}</b>"}
    result = new_output("execute_result", {"text/plain": digits}, execution_count=3)
    cells = [
        code("from IPython.display import HTML"),
        code("print(f'Dice {2 / 3:.2f}')", printed(f"Dice {digits}\n")),
        code("round(2 / 3, 2)", result),
        code("HTML(f'<b>{2 / 3:.2f}</b>')", new_output("execute_result", text, execution_count=4)),
    ]
    for count, one in enumerate(cells, 1):
        one.execution_count = count
    return new_notebook(cells=cells, metadata=good_notebook().metadata)


def test_strict_nbval_fails_on_a_doctored_output(tmp_path):
    nbformat.write(small_notebook("0.67"), tmp_path / "kept.ipynb")
    nbformat.write(small_notebook("0.68"), tmp_path / "doctored.ipynb")
    settings = ["-p", "conftest", "-p", "no:cacheprovider", "-c", "pyproject.toml", "-v", "--nbval"]
    command = [sys.executable, "-m", "pytest", *settings, tmp_path / "kept.ipynb", tmp_path / "doctored.ipynb"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    verdicts = re.findall(r"::Cell \d (PASSED|FAILED)", result.stdout)
    assert verdicts == ["PASSED"] * 4 + ["PASSED", "FAILED", "FAILED", "FAILED"], result.stdout
    assert result.returncode == 1
