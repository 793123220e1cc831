"""The front page of the built series: one self-contained HTML file."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from nbconvert.filters import markdown2html
from nbformat import NotebookNode
from PIL import Image

PICTURE_WIDTH = 560


@dataclass
class Entry:
    """One notebook on the front page."""

    number: str
    title: str
    promise: str
    page: str
    solution: str
    status: str = "waiting"
    seconds: float | None = None
    picture: str = ""

    @classmethod
    def of(cls, notebook: NotebookNode, path: Path, solved: bool) -> Entry:
        """Title and promise from the first cell: its heading, and the first paragraph that is neither links nor box."""
        heading, *rest = re.split(r"\n\s*\n|\n(?=[^#\n])", notebook.cells[0].source.strip(), maxsplit=1)
        paragraphs = re.split(r"\n\s*\n", rest[0].strip()) if rest else []
        promise = next((text for text in paragraphs if text[0] not in "[>#"), "")
        title = heading.lstrip("# ").strip()
        solution = f"solutions/{path.name[:2]}_solutions.html" if solved else ""
        return cls(path.name[:2], title, markdown2html(promise).strip(), f"{path.stem}.html", solution)

    def add_picture(self, notebook: NotebookNode) -> None:
        """The first picture that the notebook drew, made small."""
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        pictures = [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]
        if not pictures:
            return
        image = Image.open(io.BytesIO(base64.b64decode(pictures[0]))).convert("RGB")
        image.thumbnail((PICTURE_WIDTH, PICTURE_WIDTH))
        image.save(small := io.BytesIO(), "JPEG", quality=85)
        self.picture = base64.b64encode(small.getvalue()).decode()


def minutes(seconds: float) -> str:
    """A duration as a person says it."""
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"


def index_page(entries: Sequence[Entry], what: str) -> str:
    """The page, for notebooks that ran, failed or wait still; `what` says on which model and data."""
    done = [entry for entry in entries if entry.seconds is not None]
    total = minutes(sum(entry.seconds or 0 for entry in done))
    return PAGE.format(
        what=html.escape(what),
        day=date.today().isoformat(),
        done=f"{len(done)} of {len(entries)} notebooks, {total}",
        rows="\n".join(map(_row, entries)),
    )


def _row(entry: Entry) -> str:
    ran, built = entry.status == "ran", entry.seconds is not None
    title = html.escape(entry.title.removeprefix(entry.number).strip())
    name = f'<a href="{entry.page}">{title}</a>' if built else title
    picture = f'<img src="data:image/jpeg;base64,{entry.picture}" alt="">' if entry.picture else ""
    solution = f'<a href="{entry.solution}">solutions</a>' if entry.solution else ""
    return ROW.format(
        number=entry.number,
        picture=f'<a href="{entry.page}" tabindex="-1" aria-hidden="true">{picture}</a>' if picture else "",
        name=name,
        promise=entry.promise,
        kind="ran" if ran else "failed" if built else "waiting",
        status=html.escape(entry.status),
        time=minutes(entry.seconds) if entry.seconds is not None else "",
        solution=solution,
    )


ROW = """\
<tr class="{kind}">
  <td class="number">{number}</td>
  <td class="picture">{picture}</td>
  <td class="about"><h2>{name}</h2>{promise}</td>
  <td class="time">{time}</td>
  <td class="status"><span>{status}</span></td>
  <td class="solution">{solution}</td>
</tr>"""

PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>MedSAM, step by step</title>
<style>
:root {{ --ink: #1c2733; --soft: #5a6875; --line: #dfe5ea; --page: #fbfcfd; --link: #0072b2; --card: #fff;
  --good: #00795a; --bad: #b3261e; }}
@media (prefers-color-scheme: dark) {{ :root {{ --ink: #e6ebf0; --soft: #9aa8b5; --line: #2c3742; --page: #12181e;
  --link: #56b4e9; --card: #182028; --good: #3ecfa3; --bad: #ff8a80; }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }}
main {{ max-width: 68rem; margin: 0 auto; padding: 3rem 1.25rem 4rem; }}
h1 {{ font-size: 2.2rem; line-height: 1.15; margin: 0 0 .5rem; letter-spacing: -.01em; }}
.promise {{ font-size: 1.2rem; max-width: 44rem; margin: 0 0 1.25rem; }}
.facts {{ color: var(--soft); margin: 0; }}
.facts b {{ color: var(--ink); font-weight: 600; }}
.warning {{ border-left: 4px solid #e69f00; padding: .35rem .9rem; margin: 1.5rem 0 2rem; background: var(--card); }}
table {{ width: 100%; border-collapse: collapse; }}
th {{ text-align: left; font-size: .8rem; font-weight: 600; color: var(--soft); padding: 0 .75rem .5rem 0; }}
td {{ border-top: 1px solid var(--line); padding: 1rem .75rem 1rem 0; vertical-align: top; }}
a {{ color: var(--link); text-decoration: none; }}
a:hover, a:focus {{ text-decoration: underline; }}
.number {{ font-size: 1.5rem; font-weight: 700; line-height: 1.3; color: var(--soft); width: 3rem; }}
.picture {{ width: 12rem; }}
.picture img {{ display: block; width: 11rem; max-height: 7rem; object-fit: contain; object-position: left top;
  background: #fff; border: 1px solid var(--line); border-radius: 6px; }}
h2 {{ font-size: 1.15rem; margin: 0 0 .2rem; }}
.about p {{ margin: 0; color: var(--soft); max-width: 34rem; }}
.time, .status, .solution {{ white-space: nowrap; font-variant-numeric: tabular-nums; }}
.status span {{ font-weight: 600; color: var(--soft); white-space: normal; overflow-wrap: anywhere; }}
.ran .status span {{ color: var(--good); }}
.failed .status span {{ color: var(--bad); }}
footer {{ color: var(--soft); margin-top: 2rem; border-top: 1px solid var(--line); padding-top: 1rem; }}
@media (max-width: 46rem) {{ thead {{ display: none; }} tr {{ display: block; border-top: 1px solid var(--line);
  padding: 1rem 0; }} td {{ display: block; border: 0; padding: .15rem 0; width: auto; }}
  .number {{ float: left; width: 2.6rem; padding-top: 0; }} .picture {{ margin-left: 2.6rem; }}
  .about, .time, .status, .solution {{ margin-left: 2.6rem; }} }}
</style>
</head>
<body>
<main>
<h1>MedSAM, step by step</h1>
<p class="promise">Fine-tune a Segment Anything model on medical images, on your own machine, and know how good it
really is.</p>
<p class="facts">Run on <b>{what}</b>, {day}: {done}.</p>
<p class="warning"><strong>Not for clinical use.</strong> Research and teaching only.</p>
<table>
<thead><tr><th></th><th></th><th>Notebook</th><th>Time taken</th><th>Status</th><th>Exercises</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>
<footer>Each page is the output of its notebook, run from top to bottom in a fresh kernel. To try things yourself, open
the notebooks: <code>make lab</code>.</footer>
</main>
</body>
</html>
"""
