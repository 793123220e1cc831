"""Runs the notebooks and their solutions as `make test` does, and stores their outputs: `make outputs`.

    python tools/store_outputs.py          # all, in order: one go on one machine
    python tools/store_outputs.py 04 05    # those of two notebooks, after a change

Each gets a fresh kernel. Runs and embeddings are made anew, in a cache that is thrown away: the minutes told are those
of a first reader who has the checkpoints. A notebook that fails stays as it was.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import nbformat
from build_series import ROOT, execute, kernel_environment
from nbformat import NotebookNode
from series_index import minutes

from medsam_helpers.files import cache_dir

WIDGET = "application/vnd.jupyter.widget-view+json"
RAW = argparse.RawDescriptionHelpFormatter
SLOWEST = 3  # cells of a notebook that are named


def main(argv: Sequence[str] | None = None) -> int:
    """Run and store; gives the exit status: 0, or 1 if a notebook failed."""
    parser = argparse.ArgumentParser(prog="store_outputs", description=__doc__, formatter_class=RAW)
    parser.add_argument("numbers", nargs="*", metavar="NN", help="of the notebooks; default: all")
    parser.add_argument("--notebooks", type=Path, default=ROOT / "notebooks", metavar="DIR")
    args = parser.parse_args(argv)
    files = sorted(args.notebooks.glob("[0-9][0-9]_*.ipynb")) + sorted(args.notebooks.glob("solutions/*.ipynb"))
    chosen = [path for path in files if not args.numbers or path.name[:2] in args.numbers]
    if not chosen:
        parser.error(f"no notebook {' or '.join(args.numbers)} in {args.notebooks}")
    failed = False
    with tempfile.TemporaryDirectory() as cache:
        (cache_dir() / "checkpoints").mkdir(parents=True, exist_ok=True)
        (Path(cache) / "checkpoints").symlink_to(cache_dir() / "checkpoints")
        # Nobody's own settings: what is stored is what the `laptop` profile gives.
        own = {name: value for name, value in kernel_environment(None, None).items() if not name.startswith("MEDSAM_")}
        environment = own | {"MEDSAM_PRECISION": "fp32", "MEDSAM_CACHE": cache}
        for path in chosen:
            began = time.perf_counter()
            notebook, failure = execute(path, environment, path.stem)
            took = minutes(time.perf_counter() - began)
            print(f"{path.stem:30} {took:>12}  {failure or slowest(notebook)}", flush=True)
            failed |= bool(failure)
            if not failure:
                nbformat.write(cleaned(notebook), path)
    return int(failed)


def slowest(notebook: NotebookNode) -> str:
    """The seconds of the cells that took longest, by their execution counts."""
    took = {}
    for cell in notebook.cells:
        if told := cell.metadata.get("execution"):
            first, last = (datetime.fromisoformat(told[f"iopub.status.{state}"]) for state in ("busy", "idle"))
            took[cell.execution_count] = (last - first).total_seconds()
    longest = sorted(took, key=took.__getitem__, reverse=True)[:SLOWEST]
    return ", ".join(f"[{count}] {took[count]:.0f} s" for count in longest)


def cleaned(notebook: NotebookNode) -> NotebookNode:
    """The same without bars, which no reader sees, and without the cells' times; texts in a row are joined."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        kept: list[NotebookNode] = []
        for output in cell.get("outputs", []):
            widget = output.get("data", {}).pop(WIDGET, None)  # of one that is a cell's result, its text stays
            is_bar = (widget is not None and output.output_type == "display_data") or "\r" in output.get("text", "")
            if not is_bar and kept and output.get("name") and kept[-1].get("name") == output.name:
                kept[-1].text += output.text
            elif not is_bar:
                kept.append(output)
        if "outputs" in cell:
            cell.outputs = kept
    notebook.metadata = {name: notebook.metadata[name] for name in notebook.metadata if name == "kernelspec"}
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


if __name__ == "__main__":
    sys.exit(main())
