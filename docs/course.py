"""What the course adds to Sphinx: folded solutions, alt text, links, help of the commands, formulas, launch buttons.

Pages are changed as they are read, so that a notebook downloaded from the site is the notebook, without any of it.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
BRANCH = "main"
WIDGET = "application/vnd.jupyter.widget-view+json"
LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s#:]+)(#[^)\s]*)?\)")
FOLDED = "<details class='solution'><summary>{}</summary>\n\n{}\n\n</details>"
TOC = "```{{toctree}}\n:hidden:\n:caption: {}\n\n{}\n```\n"
GUIDE = ("install", "your-data", "command-line", "package", "models", "video", "mlops", "gpu", "large-data")
REFERENCE = ("RESULTS", "api", "CONTRIBUTING")


@cache
def repository() -> str:
    """Address of the repository on GitHub: `MEDSAM_REPOSITORY`, else the git remote's; empty where none is known."""
    address = os.environ.get("MEDSAM_REPOSITORY", "")
    if not address and shutil.which("git"):
        command = ["git", "remote", "get-url", "origin"]
        address = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    known = re.search(r"github\.com[:/]([\w.-]+)/([\w.-]+?)(?:\.git)?/?\s*$", address)
    return f"https://github.com/{known[1]}/{known[2]}" if known else ""


def read_page(app: Sphinx, page: str, content: list[str]) -> None:
    """The source of a page, changed: `content[0]`."""
    source = Path(app.env.doc2path(page))
    if source.suffix == ".ipynb":
        content[0] = json.dumps(course_page(json.loads(content[0]), app, page))
        return
    content[0] = relink(content[0], app, page)
    if page == "index":
        series = (Path(app.srcdir) / "series.html").read_text(encoding="utf-8")
        content[0] = content[0].replace("<!-- series -->", series) + contents(app)
    if page == "command-line":
        content[0] = content[0].replace("<!-- commands -->", command_help())


def contents(app: Sphinx) -> str:
    """The tables of contents, in the order of the sidebar."""
    found = sorted(app.env.found_docs, key=lambda page: page.split("/"))
    solutions = [page for page in found if page.startswith("notebooks/solutions/")]
    course = [page for page in found if page.startswith("notebooks/") and page not in solutions]
    cards = [f"{page.split('/')[1]} <{page}>" for page in found if page.startswith("checkpoints/")]
    parts = {"Course": course, "Guide": GUIDE, "Reference": (*REFERENCE, *cards), "Solutions": solutions}
    return "\n\n" + "\n".join(TOC.format(name, "\n".join(pages)) for name, pages in parts.items() if pages)


def command_help() -> str:
    """What every command answers to `--help`, under a heading of its own."""
    os.environ["COLUMNS"] = "96"  # as argparse breaks its lines
    from medsam_helpers.cli.main import COMMANDS, build_parser

    (commands,) = (action for action in build_parser()._actions if action.dest == "command")
    return "\n".join(f"### {name}\n\n```text\n{commands.choices[name].format_help()}```\n" for name in COMMANDS)


def course_page(notebook: dict[str, Any], app: Sphinx, page: str) -> dict[str, Any]:
    """A notebook as its page shows it: solutions folded below the exercises, a text for every figure, no widgets."""
    solutions = solutions_of(app, page)
    cells, heading, asked = [], "", list(exercises_in(notebook))
    for place, cell in enumerate(notebook["cells"]):
        cells.append(cell)
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            heading = [heading, *re.findall(r"(?m)^#+ +(?:\d+\. )?(.+)$", text)][-1]
            cell["source"] = relink(text, app, page)
            continue
        cell["outputs"] = [output for output in cell.get("outputs", []) if WIDGET not in output.get("data", {})]
        for output in cell["outputs"]:  # what can be scrolled can be reached with the keys
            if "text/html" in output.get("data", {}):
                page_part = "".join(output["data"]["text/html"])
                page_part = re.sub(r"(?=style=['\"][^'\"]*overflow:\s*auto)", 'tabindex="0" ', page_part)
                output["data"]["text/html"] = re.sub(r"<td(?=[^>]*>[^<]{1,24}</td>)", "<td data-short", page_part)
        if re.search(r"\S {2,}\S", "\n".join("".join(output.get("text", "")) for output in cell["outputs"])):
            cell["metadata"].setdefault("tags", []).append("aligned")  # columns: on a phone they scroll, prose wraps
        if any("image/png" in output.get("data", {}) for output in cell["outputs"]):
            cell["metadata"]["mystnb"] = {"image": {"alt": alt_text(cell, heading)}}
        for number in {number for where, number in asked if where == place} & solutions.keys():
            folded = FOLDED.format(f"Solution of {number}", solutions[number])
            cells.append({"cell_type": "markdown", "metadata": {}, "source": folded})
    language = {"name": "python", "pygments_lexer": "ipython3"}  # which knows `%` and `!`
    return notebook | {"cells": cells, "metadata": notebook["metadata"] | {"language_info": language}}


def exercises_in(notebook: dict[str, Any]) -> list[tuple[int, str]]:
    """Where each exercise is checked for the last time: place of the cell, number."""
    last = {}
    for place, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            last |= dict.fromkeys(re.findall(r"\bcheck\(\s*[\"'](\d\d\.\d+)", "".join(cell["source"])), place)
    return [(place, number) for number, place in last.items()]


def solutions_of(app: Sphinx, page: str) -> dict[str, str]:
    """Text and code of the solutions of a notebook, by the exercise's number; empty where it has none."""
    path = Path(app.srcdir) / "notebooks" / "solutions" / f"{Path(page).name[:2]}_solutions.ipynb"
    if "solutions" in page or not path.exists():
        return {}
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    texts = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    joined = "\n\n".join(f"```python\n{text}\n```" if kind == "code" else text for kind, text in texts)
    parts = re.split(r"(?m)^## (\d\d\.\d+).*$", joined)
    return {number: text.strip() for number, text in zip(parts[1::2], parts[2::2], strict=True)}


def alt_text(cell: dict[str, Any], heading: str) -> str:
    """A text in place of a cell's figures: its first comment, else the section's heading; and what it printed first."""
    comment = re.match(r"(?:%.*\n)?# ?(.+)", "".join(cell["source"]))
    printed = ["".join(output.get("text", "")).strip() for output in cell["outputs"] if output.get("name") == "stdout"]
    first = next((" ".join(text.splitlines()[0].split()) for text in printed if text), "")
    about = comment[1] if comment else heading
    return re.sub(r"[`*$]", "", f"Figure, {about}: {first}" if first else f"Figure, {about}")[:300]


def relink(text: str, app: Sphinx, page: str) -> str:
    """Links between files of the repository, as links between pages; to any other file, where it can be had.

    Pages of docs/ stand at the top of the site, all others where they stand in the repository. A file without a page is
    linked at the repository's address, or copied into the site where that is unknown; a folder is only named then.
    """
    home = f"docs/{page}" if "/" not in page and (ROOT / "docs" / f"{page}.md").exists() else page

    def change(link: re.Match[str]) -> str:
        words, target, place = link[1], link[2], link[3] or ""
        path = posixpath.normpath(posixpath.join(posixpath.dirname(home), target))
        name = path.removeprefix("docs/") if path.endswith(".md") else path
        if posixpath.splitext(name)[0] in app.env.found_docs:
            return f"[{words}]({posixpath.relpath(name, posixpath.dirname(page) or '.')}{place})"
        if not (ROOT / path).exists():
            return link[0]
        if repository():
            return f"[{words}]({repository()}/{'tree' if (ROOT / path).is_dir() else 'blob'}/{BRANCH}/{path}{place})"
        if (ROOT / path).is_dir():
            return words
        copy = Path(app.srcdir) / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, copy)
        return f"[{words}]({posixpath.relpath(path, posixpath.dirname(page) or '.')})"

    return LINK.sub(change, text)


def add_launch_buttons(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Where a notebook can be opened and run, in the bar above it."""
    if repository() and page.startswith("notebooks/") and "header_buttons" in context:
        links = launch_links(page)
        context["header_buttons"].insert(
            0,
            {
                "type": "group",
                "tooltip": "Open and run it",
                "icon": "fas fa-rocket",
                "label": "launch",
                "buttons": links,
            },
        )


def launch_links(page: str) -> list[dict[str, str]]:
    """The buttons of a notebook's page."""
    name = repository().removeprefix("https://github.com/")
    places = {
        "Colab": (f"https://colab.research.google.com/github/{name}/blob/{BRANCH}/{page}.ipynb", "logo_colab.png"),
        "Binder": (f"https://mybinder.org/v2/gh/{name}/{BRANCH}?urlpath=lab/tree/{page}.ipynb", "logo_binder.svg"),
        "Kaggle": (f"https://kaggle.com/kernels/welcome?src={repository()}/blob/{BRANCH}/{page}.ipynb", ""),
    }
    icons = {place: f"_static/images/{logo}" if logo else "fab fa-kaggle" for place, (_, logo) in places.items()}
    return [
        {"type": "link", "text": place, "tooltip": f"Open in {place}", "icon": icons[place], "url": url}
        for place, (url, _) in places.items()
    ]


def visit_math(translator: Any, node: nodes.Element) -> None:
    """A formula as MathML, which browsers draw by themselves."""
    block = isinstance(node, nodes.math_block)
    formula = tex2mathml(node.astext(), as_block=block)
    translator.body.append(f'<div class="formula" tabindex="0">{formula}</div>' if block else formula)
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", read_page)
    app.connect("html-page-context", add_launch_buttons, priority=502)  # after the theme has made its list
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
