"""Runs the notebooks from top to bottom, each in a fresh kernel, and builds the site from them: `make tutorial`.

The notebooks themselves are only read: what a run on other data shows stands in the pages, never in the repository.
With `--stored` nothing is run, and the pages show the outputs that are stored in the notebooks: `make site`.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode
from series_index import Entry, minutes, series_list
from tqdm import tqdm

from medsam_helpers.data.sources import SOURCES
from medsam_helpers.errors import MedsamError
from medsam_helpers.files import check_writable
from medsam_helpers.runs.settings import check_names, config_from_environment

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("RESULTS.md", "CONTRIBUTING.md", "checkpoints/*/README.md")


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
    with tempfile.TemporaryDirectory() as folder:
        try:
            return build(notebooks, Path(folder), args.output, None if args.stored else environment, f"{config}")
        except KeyboardInterrupt:
            print("build_series: interrupted; no pages were written", file=sys.stderr)
            return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="build_series", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--data", metavar="SOURCE", help="a folder with images/ and masks/, or a name; default: phantom"
    )
    parser.add_argument("--model", metavar="NAME", help="a name of `medsam weights --list`, or a path")
    parser.add_argument("--stored", action="store_true", help="run nothing: show the outputs that are stored")
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


def build(notebooks: Sequence[Path], source: Path, output: Path, environment: dict[str, str] | None, what: str) -> int:
    """Run every notebook where there is an environment for it, and build the site; `source` is an empty folder."""
    collect(notebooks, source)
    entries = [Entry.of(nbformat.read(path, as_version=4), path) for path in notebooks]
    width, started, failures = max(len(entry.title) for entry in entries), time.perf_counter(), []
    if environment is not None:
        print(f"{len(notebooks)} notebooks, on {what}; pages go to {output}", flush=True)
    for path, entry in zip(notebooks, entries, strict=True):
        notebook = nbformat.read(path, as_version=4)
        if environment is not None:
            began = time.perf_counter()
            notebook, failure = execute(path, environment, entry.title)
            entry.seconds = time.perf_counter() - began
            entry.failure = f"failed in cell {failure.cell}: {failure.error}" if failure else ""
            failures += [failure] if failure else []
            print(f"{entry.title:{width}}  {minutes(entry.seconds):>12}  {'failed' if failure else 'ran'}", flush=True)
        entry.add_picture(notebook)
        nbformat.write(notebook, source / "notebooks" / path.name)

    took = minutes(time.perf_counter() - started)
    ran = f"{len(notebooks) - len(failures)} of {len(notebooks)} notebooks ran, in {took}"
    (source / "series.html").write_text(series_list(entries, f"{what}: {ran}" if environment else ""), encoding="utf-8")
    if environment is not None:
        print(ran)
    for failure in failures:
        print(f"build_series: {failure}", file=sys.stderr)
    if not build_site(source, output):
        print("build_series: Sphinx could not build the pages; its words are above", file=sys.stderr)
        return 1
    print(f"Open {output / 'index.html'} in a browser")
    return int(bool(failures))


def collect(notebooks: Sequence[Path], source: Path) -> None:
    """Copies of all pages but the notebooks themselves, those of docs/ at the top, the others where they stand here."""
    home = notebooks[0].parent
    (source / "notebooks" / "solutions").mkdir(parents=True)
    for path in (ROOT / "docs").glob("*.md"):
        shutil.copy(path, source)
    for path in (found for pattern in PAGES for found in ROOT.glob(pattern)):
        (source / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, source / path.relative_to(ROOT))
    for path in notebooks:  # as they are stored: solutions are about the exercises, whatever data the series runs on
        if (solution := home / "solutions" / f"{path.name[:2]}_solutions.ipynb").is_file():
            shutil.copy(solution, source / "notebooks" / "solutions")
    if (home / "pictures").is_dir():
        shutil.copytree(home / "pictures", source / "notebooks" / "pictures")


def build_site(source: Path, output: Path) -> bool:
    """Whether Sphinx, with the settings of docs/conf.py, made the pages."""
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-q", "--keep-going", "-c", str(ROOT / "docs")]
    command += ["-d", str(source / ".doctrees"), str(source), str(output)]
    # PYTHONWARNINGS: what the libraries tell their developers is nothing to the reader of a build's output.
    environment = os.environ | {"PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, check=False).returncode == 0


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


if __name__ == "__main__":
    sys.exit(main())
