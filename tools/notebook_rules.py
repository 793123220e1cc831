"""What every notebook of the series keeps to: each rule returns its complaints, an empty list if there are none.

`make lint` runs it on all notebooks and solutions, and prints a line a complaint.
"""

import ast
import html
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import nbformat
from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode

from medsam_helpers.exercises.checking import exercises

ROOT = Path(__file__).resolve().parents[1]
SERIES = tuple(sorted(path.name for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")))
WRITTEN = [ROOT / "notebooks" / name for name in SERIES]
SOLVED = [ROOT / "notebooks" / "solutions" / f"{name[:2]}_solutions.ipynb" for name in SERIES]
IGNORED = "nbval-ignore-output"  # the one tag there may be: nbval runs the cell and does not compare its output
MAX_CELL_LINES = 25
MAX_CELLS, MAX_WORDS = 50, 3000  # words of the prose
MAX_PICTURES = 1_600_000  # characters of base64: 1.2 MB

Complaints = list[str]


def read(path: Path) -> NotebookNode:
    """A notebook's file."""
    return nbformat.read(path, as_version=4)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Its cells of code, in order."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def markdown(notebook: NotebookNode) -> list[str]:
    """The texts of its other cells."""
    return [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]


def syntax(cell: NotebookNode) -> ast.Module:
    """The cell's syntax tree; magics and shell lines become plain calls."""
    return ast.parse(TransformerManager().transform_cell(cell.source))


def name_of(cell: NotebookNode) -> str:
    """A cell as a complaint names it: its execution count and how it begins."""
    return f"[{cell.get('execution_count')}] {cell.source.strip().partition(chr(10))[0][:60]!r}"


def texts(cell: NotebookNode, *, stderr: bool = False) -> Iterator[str]:
    """What a cell shows as text: streams and results; of a table in two forms, the HTML without its tags."""
    for output in cell.get("outputs", []):
        if output.output_type == "stream" and (stderr or output.name == "stdout"):
            yield output.text
        for kind, data in output.get("data", {}).items():
            if kind == "text/plain" and not re.match(r"<\w*(Figure|Axes|Styler)\b", data):
                yield data
            if kind == "text/html":
                yield html.unescape(re.sub(r"(?s)<style.*?</style>|<[^>]*>", " ", data))


def pictures(cell: NotebookNode) -> str:
    """What a cell draws, in base64."""
    return "".join(output.get("data", {}).get("image/png", "") for output in cell.get("outputs", []))


def executed(notebook: NotebookNode, path: Path) -> Complaints:
    """Run from top to bottom in a fresh kernel. nbval compares nothing where the count is missing."""
    counts = [cell.execution_count for cell in code_cells(notebook)]
    return [f"execution counts are {counts}"] * (counts != [*range(1, len(counts) + 1)])


def short_cells(notebook: NotebookNode, path: Path) -> Complaints:
    """A cell of code fits a screen."""
    lengths = {name_of(cell): len(cell.source.strip().splitlines()) for cell in code_cells(notebook)}
    return [f"{name} has {length} lines" for name, length in lengths.items() if length > MAX_CELL_LINES]


def within_the_budgets(notebook: NotebookNode, path: Path) -> Complaints:
    """Cells and words; and a "Your turn" in every round."""
    words, text = sum(len(source.split()) for source in markdown(notebook)), "\n\n".join(markdown(notebook))
    cells = len(notebook.cells)
    long = cells > MAX_CELLS or words > MAX_WORDS
    rounds = re.findall(r"(?ms)^(## \d\..+?)$(.*?)(?=^## |\Z)", text)
    complaints = [f"{cells} cells, {words} words"] * long
    return complaints + [f"no exercise in {heading!r}" for heading, said in rounds if "**Your turn" not in said]


def only_known_tags(notebook: NotebookNode, path: Path) -> Complaints:
    """Nothing but the one tag steers nbval: no comment, and no tag that skips a cell."""
    return [
        f"{name_of(cell)}: {what}"
        for cell in notebook.cells
        for what in cell.metadata.get("tags", []) + re.findall(r"(?i)#\s*(?:nbval|pytest_validate)\w*", cell.source)
        if what != IGNORED
    ]


def ignored_cells_are_asserted(notebook: NotebookNode, path: Path) -> Complaints:
    """At most a third of the outputs go uncompared; each has an assert in its cell or the next."""
    cells = code_cells(notebook)
    ignored = [i for i, cell in enumerate(cells) if IGNORED in cell.metadata.get("tags", [])]
    unwatched = [cells[i] for i in ignored if not re.search(r"\bassert", "".join(c.source for c in cells[i : i + 2]))]
    complaints = [f"{name_of(cell)}: its output is ignored and no assert in it or after it" for cell in unwatched]
    return complaints + [f"{len(ignored)} of {len(cells)} outputs are ignored"] * (3 * len(ignored) > len(cells))


def clean_outputs(notebook: NotebookNode, path: Path) -> Complaints:
    """No errors, no warnings, no walls of log lines, no widget state."""
    complaints = ["widget state is stored"] * ("widgets" in notebook.metadata)
    for cell in code_cells(notebook):
        for output in cell.outputs:
            text, stream = output.get("text", ""), output.get("name")
            if "application/vnd.jupyter.widget-view+json" in output.get("data", {}):
                complaints.append(f"{name_of(cell)}: a widget or a bar is stored, which no reader sees")
            most = {"stderr": 5, "stdout": 40}.get(stream, 0)
            if output.output_type == "error" or (stream == "stderr" and "Warning" in text) or text.count("\n") > most:
                complaints.append(f"{name_of(cell)}: {output.get('ename') or stream}, {text[:60]!r}")
    return complaints


MACHINE = r"(?<!\w)/(?:home|Users|root|work|farm|tmp|mnt|opt|private|var)/[\w.-]+|[A-Z]:\\\w+|\b0x[0-9a-f]{6,}"


def no_machine_in_it(notebook: NotebookNode, path: Path) -> Complaints:
    """No path of somebody's disk and no address in memory."""
    return [
        f"{name_of(cell)}: {hit}"
        for cell in notebook.cells
        for text in [cell.source, *texts(cell, stderr=True)]
        for hit in re.findall(MACHINE, text)
    ]


def figures_print_their_number(notebook: NotebookNode, path: Path) -> Complaints:
    """A cell that draws prints its key number, since nbval compares no pictures; all together stay small."""
    drawing = [cell for cell in code_cells(notebook) if pictures(cell)]
    silent = [cell for cell in drawing if not any(re.search(r"\d", text) for text in texts(cell))]
    complaints = [f"{name_of(cell)}: draws and prints no number" for cell in silent]
    size = sum(len(pictures(cell)) for cell in drawing)
    return complaints + [f"pictures of {size:,} characters"] * (size > MAX_PICTURES)


NUMBER = r"\d+(?:\.\d+)?(?:e[-+]?\d+)?"
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


def numbers_are_printed(notebook: NotebookNode, path: Path) -> Complaints:
    """A decimal, or a number above 12, in the prose is the output of a cell, to the digit (0.9 is 0.90).

    Not looked at: what `NO_RESULT` lists, and the references.
    """
    shown = " ".join(text for cell in code_cells(notebook) for text in texts(cell))
    printed = {float(number) for number in re.findall(NUMBER, f"{shown} {_without_commas(shown)}")}
    prose = re.sub(r"(?ms)^## References$.*?(?=^## |\Z)", "", "\n\n".join(markdown(notebook)))
    stated = re.findall(r"(?<![\w.])" + NUMBER, _without_commas(NO_RESULT.sub(" ", prose)))  # not the 16 of fp16
    results = [number for number in stated if float(number) > 12 or not number.isdigit()]
    return [f"{number} is printed by no cell" for number in results if float(number) not in printed]


def _without_commas(text: str) -> str:
    """1,090,486 as 1090486."""
    return re.sub(r"(?<=\d),(?=\d{3})", "", text)


def _defines(trees: Iterable[ast.Module]) -> list[str]:
    """Functions and classes, in order."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return [node.name for tree in trees for node in tree.body if isinstance(node, kinds)]


@cache
def _defined_in(path: Path) -> list[str]:
    return _defines(map(syntax, code_cells(read(path))) if path.suffix == ".ipynb" else [ast.parse(path.read_bytes())])


def defined_once(notebook: NotebookNode, path: Path) -> Complaints:
    """What is used twice lives in the package; a notebook and its own solutions may share the names of exercises."""
    others = [other for other in WRITTEN + SOLVED if other.name[:2] != path.name[:2]]
    others += (ROOT / "medsam_helpers").rglob("*.py")
    elsewhere = {name: other.name for other in others for name in _defined_in(other)}
    own = Counter(_defines(map(syntax, code_cells(notebook))))
    complaints = [f"{name} is defined in {elsewhere[name]} too" for name in own if name in elsewhere]
    return complaints + [f"{name} is defined twice" for name, times in own.items() if times > 1]


def links_resolve(notebook: NotebookNode, path: Path) -> Complaints:
    """A link inside the project leads to a file that is there, seen from the notebook's folder."""
    link = r"(?:\]\(|(?:href|src)=\")(?!https?://|mailto:|#)([^)\s\"#]+)"
    targets = [target for source in markdown(notebook) for target in re.findall(link, source)]
    return [f"{target} leads nowhere" for target in targets if not (path.parent / target).exists()]


SETUP = r"(?m)config_from_environment\(|^RECORDS = "  # what a notebook runs on: a model and its data, or records
TEMPLATE = {
    "title": r"\A# \d\d \S",
    "box": r"^> ",
    "objectives": r"^## Objectives$",
    "end result in one picture": r"^<picture>$|!\[",
    "set-up cell": r"^<set-up>$",
    "first round": r"^## 1\. ",
    "exercises": r"^## Exercises$|\*\*Your turn",
    "what you learned": r"^## What you learned$",
    "quiz": r"^## Quiz$",
    "references": r"^## References$",
}


def template(notebook: NotebookNode, path: Path) -> Complaints:
    """All parts of a notebook, whole and in order."""
    setups = [cell for cell in code_cells(notebook) if re.search(SETUP, cell.source)]
    marks = ["<set-up>" * (cell in setups) or "<picture>" * bool(pictures(cell)) for cell in notebook.cells]
    cells = zip(notebook.cells, marks, strict=True)
    text = "\n\n".join(cell.source if cell.cell_type == "markdown" else mark for cell, mark in cells)
    places = {part: hit.start() for part, form in TEMPLATE.items() if (hit := re.search(form, text, re.MULTILINE))}
    complaints = [f"no {part}" for part in TEMPLATE if part not in places]
    complaints += [f"{b} before {a}" for a, b in pairwise(places) if places[a] >= places[b]]

    place, (first, *_, last) = SERIES.index(path.name), markdown(notebook)
    following = SERIES[place + 1 : place + 2]
    neighbours = SERIES[max(place - 1, 0) : place] + following
    sections = dict(re.findall(r"(?ms)^## (.+?)$(.*?)(?=^## |\Z)", text))
    rounds = [heading for heading in sections if heading[0].isdigit()]
    aims = re.findall(r"(?m)^- \*\*[A-Z]\w+\*\*", sections.get("Objectives", ""))
    lessons = re.findall(r"(?m)^- ", sections.get("What you learned", ""))
    kept = {
        "its number in the title": first.startswith(f"# {path.name[:2]} "),
        "links to the neighbours at the top": all(f"]({name}" in first for name in neighbours),
        "link to the next at the end": all(f"]({name}" in last for name in following),
        "CPU and GPU minutes, 'not for clinical use' in the box": re.search(r"(?s)> .*CPU.*GPU.*clinical use", first),
        "three to five rounds": 3 <= len(rounds) <= 5,
        "rounds numbered from 1": [heading.partition(".")[0] for heading in rounds] == list("12345"[: len(rounds)]),
        "pitfall box in a round": any("> **Pitfall" in sections[heading] for heading in rounds),
        "three to five objectives that begin with a verb": 3 <= len(aims) <= 5,
        "as many lessons as objectives": len(lessons) == len(aims),
        "three folded answers in the quiz": sections.get("Quiz", "").count("<details>") == 3,
        "one set-up cell, one line printed": [len("".join(texts(c)).splitlines()) for c in setups] == [1],
    }
    return complaints + [f"not kept: {part}" for part, holds in kept.items() if not holds]


def exercises_say(notebook: NotebookNode, path: Path) -> Complaints:
    """Exercises, each checked: left to the reader in the notebook, correct in its solutions."""
    shown = "\n".join(text for cell in code_cells(notebook) for text in texts(cell))
    said = dict(re.findall(r"(?m)^(\d\d\.\d): (.*)$", shown))
    known, verdict = set(exercises(path.name[:2])), "correct" if path in SOLVED else "not attempted yet"
    complaints = [f"{number}: {told}" for number, told in said.items() if told != verdict]
    if said.keys() != known or not 2 <= len(known) <= 10:
        complaints.append(f"checks {sorted(said)}; the checkers there are for {sorted(known)}, two to ten of them")
    return complaints


RULES = [executed, short_cells, only_known_tags, ignored_cells_are_asserted, clean_outputs, no_machine_in_it]
RULES += [figures_print_their_number, numbers_are_printed, defined_once, links_resolve, exercises_say]


def complaints_of(path: Path) -> dict[str, Complaints]:
    """{rule: what it complains of}, of a notebook of the series or of its solutions."""
    notebook = read(path)
    kept = [*RULES, template, within_the_budgets] if path in WRITTEN else RULES
    return {rule.__name__: said for rule in kept if (said := rule(notebook, path))}


def main() -> int:
    """Print every complaint; gives the exit status."""
    said = [(path, *one) for path in WRITTEN + SOLVED for one in complaints_of(path).items()]
    for path, rule, complaints in said:
        print(*(f"{path.relative_to(ROOT)}: {rule}: {complaint}" for complaint in complaints), sep="\n")
    return int(bool(said))


if __name__ == "__main__":
    sys.exit(main())
