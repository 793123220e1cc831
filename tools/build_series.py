"""Runs the notebooks from top to bottom, each in a fresh kernel, and writes them as HTML pages: `make tutorial`.

The notebooks themselves are only read: what a run on other data shows stands in the pages, never in the repository.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from series_index import Entry, index_page, minutes
from tqdm import tqdm

from medsam_helpers.data.sources import SOURCES
from medsam_helpers.errors import MedsamError
from medsam_helpers.files import check_writable
from medsam_helpers.runs.settings import check_names, config_from_environment

ROOT = Path(__file__).resolve().parents[1]
WIDGET = "application/vnd.jupyter.widget-view+json"
NAV = (
    '<nav style="font:14px system-ui,sans-serif;padding:.8em 1.2em">'
    '<a href="{index}" style="color:#0072b2">&larr; All notebooks</a></nav>'
)


@dataclass(frozen=True)
class Failure:
    """Where a notebook stopped, and why."""

    notebook: str
    cell: str
    error: str

    def __str__(self) -> str:
        return f"{self.notebook}, cell {self.cell}: {self.error}"


def main(argv: Sequence[str] | None = None) -> int:
    """Build the series; gives the exit status: 0, 1 (a notebook failed), 2 (one line said why), 130 (interrupted)."""
    args = _parser().parse_args(argv)
    try:
        check_names(model=args.model, data=args.data)
        check_writable(args.output)
        environment = kernel_environment(args.data, args.model)
        config = config_from_environment(environment)
        notebooks = sorted(args.notebooks.glob("[0-9][0-9]_*.ipynb"))
        if not notebooks:
            raise MedsamError(f"{args.notebooks} holds no notebook named like 00_title.ipynb")
    except MedsamError as error:
        print(f"build_series: {error}", file=sys.stderr)
        return 2
    try:
        return build(notebooks, args.output, environment, f"{config}")
    except KeyboardInterrupt:
        print(f"build_series: interrupted; the pages written so far: {args.output / 'index.html'}", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="build_series", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--data", metavar="SOURCE", help="a folder with images/ and masks/, or a name; default: phantom"
    )
    parser.add_argument("--model", metavar="NAME", help="a name of `medsam weights --list`, or a path")
    parser.add_argument("--notebooks", type=Path, default=ROOT / "notebooks", metavar="DIR")
    parser.add_argument("--output", type=Path, default=Path("build/html"), metavar="DIR")
    return parser


def kernel_environment(data: str | None, model: str | None) -> dict[str, str]:
    """What the kernels find in their environment: `MEDSAM_DATA` and `MEDSAM_MODEL` as asked for."""
    environment = dict(os.environ)
    environment.pop("MPLBACKEND", None)  # Agg, on many servers, would keep pictures out of the pages
    if not data and not model:
        # The prose was written to numbers computed in fp32; other data gets whatever is fast here.
        environment.setdefault("MEDSAM_PRECISION", "fp32")
    if data:  # kernels run in the folder of the notebooks
        environment["MEDSAM_DATA"] = data if data in SOURCES else str(Path(data).expanduser().resolve())
    if model:
        path = Path(model).expanduser()
        environment["MEDSAM_MODEL"] = str(path.resolve()) if path.exists() else model
    return environment


def build(notebooks: Sequence[Path], output: Path, environment: dict[str, str], what: str) -> int:
    """Run every notebook, write its page, and the index after each, so that there is something to read early."""
    solutions = {path: path.parent / "solutions" / f"{path.name[:2]}_solutions.ipynb" for path in notebooks}
    solutions = {path: solution for path, solution in solutions.items() if solution.is_file()}
    pages = {*notebooks, *solutions.values()}
    for solution in solutions.values():
        # As they are stored: solutions are about the exercises, whatever data the series runs on.
        write_page(nbformat.read(solution, as_version=4), solution, output, notebooks[0].parent, pages)

    entries = [Entry.of(nbformat.read(path, as_version=4), path, path in solutions) for path in notebooks]
    width, started, failures = max(len(entry.title) for entry in entries), time.perf_counter(), []
    print(f"{len(notebooks)} notebooks, on {what}; pages go to {output}", flush=True)
    for path, entry in zip(notebooks, entries, strict=True):
        began = time.perf_counter()
        notebook, failure = execute(path, environment, entry.title)
        entry.seconds = time.perf_counter() - began
        entry.status = f"failed in cell {failure.cell}: {failure.error}" if failure else "ran"
        entry.add_picture(notebook)
        write_page(notebook, path, output, notebooks[0].parent, pages)
        (output / "index.html").write_text(index_page(entries, what), encoding="utf-8")
        failures += [failure] if failure else []
        print(f"{entry.title:{width}}  {minutes(entry.seconds):>12}  {'failed' if failure else 'ran'}", flush=True)

    ran = len(notebooks) - len(failures)
    print(f"{ran} of {len(notebooks)} notebooks ran, in {minutes(time.perf_counter() - started)}")
    for failure in failures:
        print(f"build_series: {failure}", file=sys.stderr)
    print(f"Open {output / 'index.html'} in a browser")
    return int(bool(failures))


def execute(path: Path, environment: dict[str, str], title: str) -> tuple[NotebookNode, Failure | None]:
    """A copy of the notebook with the outputs of this run, up to the cell that failed if one did."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        store_widget_state=False,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],  # not a warning for each kernel that it speaks TCP
        resources={"metadata": {"path": str(path.parent)}},
    )
    reached = 0
    with tqdm(total=len(notebook.cells), desc=title, unit="cell", leave=False, disable=None) as bar:

        def at_cell(cell: NotebookNode, cell_index: int) -> None:
            nonlocal reached
            reached = cell_index
            bar.update(cell_index - bar.n)

        client.on_cell_start = at_cell
        try:
            client.execute(env=environment)
        except CellExecutionError as error:
            return notebook, Failure(path.name, _cell(notebook, reached), f"{error.ename}: {_last_line(error.evalue)}")
        except DeadKernelError:
            why = "the kernel died; most often the memory was not enough"
            return notebook, Failure(path.name, _cell(notebook, reached), why)
    return notebook, None


def _cell(notebook: NotebookNode, index: int) -> str:
    """A cell as a message names it: its place among the code cells, and how it begins."""
    number = sum(cell.cell_type == "code" for cell in notebook.cells[: index + 1])
    return f"[{number}] {notebook.cells[index].source.strip().splitlines()[0][:60]!r}"


def _last_line(text: str) -> str:
    """Colours of the terminal taken out."""
    return re.sub(r"\x1b\[[\d;]*m", "", text).strip().splitlines()[-1] if text.strip() else ""


def write_page(notebook: NotebookNode, path: Path, output: Path, folder: Path, pages: set[Path]) -> None:
    """One notebook as HTML, at the place below `output` that it has below `folder`."""
    for cell in notebook.cells:
        if cell.cell_type == "code":  # progress bars and other widgets live in a running kernel only
            cell.outputs = [shown for shown in cell.outputs if WIDGET not in shown.get("data", {})]
    page = output / path.relative_to(folder).with_suffix(".html")
    name = notebook.cells[0].source.partition("\n")[0].lstrip("# ")
    resources = {"metadata": {"name": name, "path": str(path.parent)}}
    html, _ = HTMLExporter(embed_images=True).from_notebook_node(notebook, resources=resources)
    index = os.path.relpath(output / "index.html", page.parent)
    html = re.sub(r"<body[^>]*>", lambda body: body[0] + NAV.format(index=index), html, count=1)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(relink(html, path, page, pages), encoding="utf-8")


def relink(html: str, notebook: Path, page: Path, pages: set[Path]) -> str:
    """Links to a notebook that has a page lead to the page; to another file of the project, to where it lies."""
    known = {path.resolve() for path in pages}

    def change(link: re.Match[str]) -> str:
        target, hash_, place = link[2].partition("#")
        file = (notebook.parent / target).resolve()
        if not target or re.match(r"[a-z]+:", target) or not file.exists():
            return link[0]
        new = str(Path(target).with_suffix(".html").as_posix())
        if file not in known:
            new = Path(os.path.relpath(file, page.parent.resolve())).as_posix()
        return f'{link[1]}"{new}{hash_}{place}"'

    # In the links of the prose alone: what `<script>` and `<style>` hold is nobody's link.
    return re.sub(r'(<a\b[^>]*?\bhref=)"([^"]*)"', change, html)


if __name__ == "__main__":
    sys.exit(main())
