"""What every notebook of the series keeps to: each rule returns its complaints, an empty list if there are none."""

import ast
import base64
import html
import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode

ROOT = Path(__file__).parents[2]
SERIES = tuple(sorted(path.name for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")))
SOLUTIONS = tuple(f"solutions/{name[:2]}_solutions.ipynb" for name in SERIES)
TAGS = {"nbval-ignore-output", "raises-exception"}
MAX_CELL_LINES = 25
MAX_PNG_BYTES = 1_200_000

Complaints = list[str]


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def syntax(cell: NotebookNode) -> ast.Module:
    """The cell's syntax tree; magics and shell lines become plain calls."""
    return ast.parse(TransformerManager().transform_cell(cell.source))


def name_of(cell: NotebookNode) -> str:
    """A cell as a complaint names it: its execution count and how it begins."""
    return f"[{cell.get('execution_count')}] {cell.source.strip().partition(chr(10))[0][:60]!r}"


def texts(cell: NotebookNode, *, stderr: bool = False) -> Iterator[str]:
    """What a cell shows as text: streams and results; of a table in two forms, the HTML without its tags."""
    for output in cell.outputs:
        if output.output_type == "stream" and (stderr or output.name == "stdout"):
            yield output.text
        if output.output_type == "error" and stderr:
            yield "\n".join(output.traceback)
        for kind, data in output.get("data", {}).items():
            if kind == "text/plain" and not re.match(r"<\w*(Figure|Axes|Styler)\b", data):
                yield data
            if kind == "text/html":
                yield html.unescape(re.sub(r"(?s)<style.*?</style>|<[^>]*>", " ", data))


def pictures(cell: NotebookNode) -> list[bytes]:
    found = [output.get("data", {}).get("image/png") for output in cell.get("outputs", [])]
    return [base64.b64decode(data) for data in found if data]


def tags(cell: NotebookNode) -> set[str]:
    return set(cell.metadata.get("tags", []))


def executed(notebook: NotebookNode) -> Complaints:
    """Run from top to bottom in a fresh kernel. nbval compares nothing where the count is missing."""
    counts = [cell.execution_count for cell in code_cells(notebook)]
    return [f"execution counts are {counts}"] if counts != [*range(1, len(counts) + 1)] else []


def short_cells(notebook: NotebookNode) -> Complaints:
    lengths = {name_of(cell): len(cell.source.strip().splitlines()) for cell in code_cells(notebook)}
    return [f"{name} has {length} lines" for name, length in lengths.items() if length > MAX_CELL_LINES]


def only_known_tags(notebook: NotebookNode) -> Complaints:
    """Nothing but the two tags steers nbval: no comment, and no tag that skips a cell."""
    return [
        f"{name_of(cell)}: {what}"
        for cell in notebook.cells
        for what in [*(tags(cell) - TAGS), *re.findall(r"(?i)#\s*(?:nbval|pytest_validate)\w*", cell.source)]
    ]


def ignored_cells_are_asserted(notebook: NotebookNode) -> Complaints:
    """At most a third of the outputs go uncompared; beside each of them stands an assert."""
    cells = code_cells(notebook)
    ignored = [i for i, cell in enumerate(cells) if "nbval-ignore-output" in tags(cell)]
    unwatched = [i for i in ignored if not any(re.search(r"\bassert", cell.source) for cell in cells[i : i + 2])]
    complaints = [f"{name_of(cells[i])}: its output is ignored and no assert in it or after it" for i in unwatched]
    if 3 * len(ignored) > len(cells):
        complaints.append(f"the output of {len(ignored)} cells out of {len(cells)} is ignored")
    return complaints


def clean_outputs(notebook: NotebookNode) -> Complaints:
    """No errors but those announced, no warnings, no walls of log lines, no widget state."""
    complaints = ["widget state is stored"] if "widgets" in notebook.metadata else []
    for cell in code_cells(notebook):
        errors = [output.ename for output in cell.outputs if output.output_type == "error"]
        if errors and "raises-exception" not in tags(cell):
            complaints.append(f"{name_of(cell)}: {errors[0]}")
        for output in cell.outputs:
            if output.get("name") == "stderr" and (output.text.count("\n") > 5 or "Warning" in output.text):
                complaints.append(f"{name_of(cell)}: writes to stderr: {output.text[:60]!r}")
            if output.get("name") == "stdout" and len(output.text.splitlines()) > 40:
                complaints.append(f"{name_of(cell)}: prints {len(output.text.splitlines())} lines")
    return complaints


MACHINE = re.compile(
    r"(?<!\w)/(?:home|Users|root|work|farm|tmp|mnt|opt|private|var)/[\w.-]+|[A-Z]:\\\w+|\b0x[0-9a-f]{6,}"
)


def no_machine_in_it(notebook: NotebookNode) -> Complaints:
    """No path of somebody's disk and no address in memory."""
    return [
        f"{name_of(cell)}: {hit}"
        for cell in notebook.cells
        for text in [cell.source, *(texts(cell, stderr=True) if cell.cell_type == "code" else [])]
        for hit in MACHINE.findall(text)
    ]


def figures_print_their_number(notebook: NotebookNode) -> Complaints:
    """nbval does not compare pictures, so a cell that draws says its key number; all together stay small."""
    drawing = [cell for cell in code_cells(notebook) if pictures(cell)]
    silent = [cell for cell in drawing if not any(re.search(r"\d", text) for text in texts(cell))]
    complaints = [f"{name_of(cell)}: draws and prints no number" for cell in silent]
    size = sum(len(picture) for cell in drawing for picture in pictures(cell))
    return complaints + ([f"pictures of {size:,} bytes"] if size > MAX_PNG_BYTES else [])


NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[-+]?\d+)?"
PROSE_NUMBER = re.compile(r"(?<![\w.])(?<!\d,)" + NUMBER)  # not the 16 of fp16
NO_RESULT = re.compile(
    r"""(?smx)
    ^```.*?^```                                     # blocks of code
    | `[^`\n]*[A-Za-z_][^`\n]*`                     # code: a span with a letter; `0.91` alone is a number still
    | \$\$.*?\$\$                                   # a formula set on its own line
    | \]\([^)]*\) | <?https?://\S+                  # where links go
    | </?[a-z][^>]*>                                # tags
    | (?i:arxiv:\s*\d{4}\.\d{4,5} | doi:\s*\S+ )    # names of papers
    | (?i:\b(?:sections?|eq\.|equations?|fig\.|figures?|tables?|appendix)\s+[\d.]+)
    | \#\d+                                         # issues
    | (?<![\w.,])(?:19|20)\d\d(?!\w|[.,]\d)        # years
    | (?<![\w.,])0\d(?:\.\d)?(?!\w|[.,]\d)         # notebooks and their exercises
    """
)


def numbers_are_printed(notebook: NotebookNode) -> Complaints:
    """A decimal, or a number above 12, in the prose is the output of a cell, to the digit (0.9 is 0.90).

    Not looked at: what `NO_RESULT` lists, and the references.
    """
    printed = {value for cell in code_cells(notebook) for text in texts(cell) for value in _output_values(text)}
    prose = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    prose = re.sub(r"(?ms)^## References$.*?(?=^## |\Z)", "", prose)
    found = [hit.group() for hit in PROSE_NUMBER.finditer(NO_RESULT.sub(" ", prose))]
    claims = [text for text in found if "." in text or not _value(text).is_integer() or _value(text) > 12]
    return [f"{text} is printed by no cell" for text in claims if _value(text) not in printed]


def _output_values(text: str) -> set[float]:
    found = {hit.group() for hit in re.finditer(NUMBER, text)}
    return {_value(part) for number in found for part in (number, *number.split(","))}


def _value(number: str) -> float:
    return float(number.replace(",", ""))


DEFINES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def definitions(notebook: NotebookNode) -> list[str]:
    """Functions and classes that the notebook defines, in order."""
    return [node.name for cell in code_cells(notebook) for node in syntax(cell).body if isinstance(node, DEFINES)]


@cache
def package_definitions(package: Path) -> dict[str, str]:
    """{function or class: the module of the package that defines it}."""
    files = [(file, ast.parse(file.read_text(encoding="utf-8"))) for file in package.rglob("*.py")]
    return {node.name: file.name for file, tree in files for node in tree.body if isinstance(node, DEFINES)}


def defined_once(notebook: NotebookNode, elsewhere: dict[str, str]) -> Complaints:
    """What is used twice lives in the package; so no name is defined in two places."""
    own = definitions(notebook)
    complaints = [f"{name} is defined in {elsewhere[name]} too" for name in own if name in elsewhere]
    return complaints + [f"{name} is defined twice" for name in sorted({n for n in own if own.count(n) > 1})]


LINK = re.compile(r"\]\(([^)\s]+)\)|(?:href|src)=\"([^\"]+)\"")


def links_resolve(notebook: NotebookNode, folder: Path) -> Complaints:
    """A link inside the project leads to a file that is there, seen from the notebook's folder."""
    targets = [a or b for cell in notebook.cells if cell.cell_type == "markdown" for a, b in LINK.findall(cell.source)]
    inside = [t.partition("#")[0] for t in targets if not re.match(r"https?://|mailto:|attachment:|data:|#", t)]
    return [f"{t} leads nowhere" for t in inside if not (folder / t).exists()]


TEMPLATE = {
    "title": r"\A# \d\d \S",
    "box": r"(?m)^> ",
    "objectives": r"(?m)^## Objectives$",
    "end result in one picture": None,
    "set-up cell": None,
    "first round": r"(?m)^## 1\. ",
    "exercises": r"(?m)^## Exercises$",
    "what you learned": r"(?m)^## What you learned$",
    "quiz": r"(?m)^## Quiz$",
    "references": r"(?m)^## References$",
}


def template_order(notebook: NotebookNode) -> Complaints:
    """The parts of a notebook, all of them and in this order."""
    places: dict[str, tuple[int, int]] = {}
    for i, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            for part, pattern in TEMPLATE.items():
                if pattern and (hit := re.search(pattern, cell.source)):
                    places.setdefault(part, (i, hit.start()))
        if pictures(cell) or (cell.cell_type == "markdown" and "![" in cell.source):
            places.setdefault("end result in one picture", (i, 0))
        if cell.cell_type == "code" and "config_from_environment(" in cell.source:
            places.setdefault("set-up cell", (i, 0))
    complaints = [f"no {part}" for part in TEMPLATE if part not in places]
    ordered = [part for part in TEMPLATE if part in places]
    complaints += [f"{b} before {a}" for a, b in pairwise(ordered) if places[a] >= places[b]]
    return complaints


def parts_are_whole(notebook: NotebookNode, name: str) -> Complaints:
    """Neighbours linked at both ends, 3 to 5 rounds, a pitfall, as many lessons as objectives, three quiz questions."""
    prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    text = "\n\n".join(prose)
    place = SERIES.index(name)
    complaints = [] if prose[0].startswith(f"# {name[:2]} ") else [f"the title does not begin with {name[:2]}"]
    neighbours = SERIES[max(place - 1, 0) : place] + SERIES[place + 1 : place + 2]
    complaints += [f"no link to {n} at the top" for n in neighbours if f"]({n}" not in prose[0]]
    complaints += [f"no link to {n} at the end" for n in SERIES[place + 1 : place + 2] if f"]({n}" not in prose[-1]]
    rounds = [int(n) for n in re.findall(r"(?m)^## (\d+)\. ", text)]
    if rounds != list(range(1, len(rounds) + 1)) or not 3 <= len(rounds) <= 5:
        complaints.append(f"rounds are numbered {rounds}: three to five, from 1")
    if "> **Pitfall" not in text.partition("## 1. ")[2].partition("## Exercises")[0]:
        complaints.append("no pitfall box between the first round and the exercises")
    box = "\n".join(line for line in text.partition("## Objectives")[0].splitlines() if line.startswith(">"))
    if not all(word in box for word in ("CPU", "GPU", "clinical use")):
        complaints.append("the box lacks the minutes on CPU, those on GPU, or 'not for clinical use'")
    aims, lessons = _items(text, "Objectives"), _items(text, "What you learned")
    if not 3 <= aims <= 5 or aims != lessons:
        complaints.append(f"{aims} objectives and {lessons} lessons: three to five, one to one")
    if (folded := text.partition("## Quiz")[2].count("<details>")) != 3:
        complaints.append(f"{folded} folded answers in the quiz, not three")
    setups = [cell for cell in code_cells(notebook) if "config_from_environment(" in cell.source]
    if [len("".join(texts(cell)).strip().splitlines()) for cell in setups] != [1]:
        complaints.append("not one set-up cell that prints one line")
    return complaints


def _items(text: str, heading: str) -> int:
    section = re.search(rf"(?ms)^## {heading}$(.*?)(?=^## |\Z)", text)
    return len(re.findall(r"(?m)^(?:[-*]|\d\.) ", section[1])) if section else 0


_VERDICT = re.compile(r"(?m)^(\d\d\.\d): (.*)$")


def exercises_say(notebook: NotebookNode, number: str, verdict: str, known: set[str]) -> Complaints:
    """Each exercise of the notebook is checked, and its checker says the verdict."""
    said = {n: v for cell in code_cells(notebook) for text in texts(cell) for n, v in _VERDICT.findall(text)}
    wanted = {exercise for exercise in known if exercise.startswith(f"{number}.")}
    complaints = [] if 2 <= len(wanted) <= 3 else [f"{len(wanted)} exercises, not two or three"]
    if said.keys() != wanted:
        complaints.append(f"checks {sorted(said)}; the checkers there are for {sorted(wanted)}")
    return complaints + [f"{n}: {v}" for n, v in said.items() if v != verdict]
