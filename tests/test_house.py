"""How large the package may be, what importing it costs, and how much of it the notebooks need."""

import ast
from pathlib import Path

import nbformat
import notebook_rules as rules
import pytest
from helpers import python

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "medsam_helpers"


def lengths(*folders):
    """{file: its lines, all of them}"""
    files = [file for folder in folders for file in folder.rglob("*.py")]
    return {str(file.relative_to(ROOT)): len(file.read_text(encoding="utf-8").splitlines()) for file in files}


def top_level():
    return {name: size for name, size in lengths(PACKAGE).items() if name.count("/") == 1}


def test_the_package_stays_small_enough_to_read():
    package, tests = lengths(PACKAGE), lengths(ROOT / "tests")
    core = top_level() | lengths(*(PACKAGE / folder for folder in ("data", "sam", "training", "evaluation")))
    whole = sum(package.values())
    assert sum(core.values()) <= 5700, f"lines of the core: {core}"
    assert whole <= 13_500, f"lines of the package: {package}"
    assert sum(tests.values()) <= 0.8 * whole, f"lines of the tests, for {whole} of the package: {tests}"


def test_a_module_is_one_idea():
    long = {name: size for name, size in lengths(PACKAGE).items() if size > 200}
    assert len(top_level()) <= 8, f"files at the top: {list(top_level())}"
    # A table may make a module longer; there are few such tables.
    assert len(long) <= 5, f"modules of over 200 lines: {long}"
    assert all(size <= 250 for size in long.values()), f"modules of over 250 lines: {long}"


def test_importing_the_package_is_quick_and_loads_no_large_library():
    code = "import sys, time; began = time.perf_counter(); import medsam_helpers; print(time.perf_counter() - began, "
    code += "*{'torch', 'numpy', 'pandas'} & sys.modules.keys())"
    seconds, loaded = zip(
        *((float(first), rest) for first, *rest in (python(code).split() for _ in range(5))), strict=True
    )
    assert min(seconds) < 0.2
    assert loaded[0] == []


def imports(path):
    """The lines of a notebook that import from the package."""
    nodes = [
        node for cell in rules.code_cells(nbformat.read(path, as_version=4)) for node in ast.walk(rules.syntax(cell))
    ]
    lines = [ast.unparse(node) for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom))]
    return [line for line in lines if line.split()[1].partition(".")[0] == "medsam_helpers"]


@pytest.mark.parametrize(("names", "most"), [(rules.SERIES[1:2], 12), (rules.SERIES[:6], 50)], ids=["01", "00-05"])
def test_a_notebook_needs_few_modules(names, most):
    lines = [line for name in names for line in imports(ROOT / "notebooks" / name)]
    # A folder's `__init__` that is a docstring only is nothing to read.
    ask = "import ast, sys; from pathlib import Path"
    ask += "\nfor name, module in sorted(sys.modules.items()):"
    ask += "\n    is_ours = name.partition('.')[0] == 'medsam_helpers'"
    ask += "\n    if is_ours and len(ast.parse(Path(module.__file__).read_text()).body) > 1:"
    ask += "\n        print(name)"
    found = python("\n".join([*lines, ask])).split()
    assert len(found) <= most, f"{len(found)} modules: {found}"
