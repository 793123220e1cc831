"""The list of notebooks on the front page of the site."""

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
STORED = "The outputs are those stored in the notebooks, made on phantoms: images drawn by a program."


@dataclass
class Entry:
    """One notebook on the front page."""

    title: str
    promise: str
    page: str
    failure: str = ""
    seconds: float | None = None
    picture: str = ""

    @classmethod
    def of(cls, notebook: NotebookNode, path: Path) -> Entry:
        """Title and promise from the first cell: its heading, and the first paragraph that is neither links nor box."""
        heading, *rest = re.split(r"\n\s*\n|\n(?=[^#\n])", notebook.cells[0].source.strip(), maxsplit=1)
        paragraphs = re.split(r"\n\s*\n", rest[0].strip()) if rest else []
        promise = next((text for text in paragraphs if text[0] not in "[>#"), "")
        return cls(heading.lstrip("# ").strip(), markdown2html(promise).strip(), f"notebooks/{path.stem}.html")

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


def series_list(entries: Sequence[Entry], ran: str) -> str:
    """The list, as HTML; `ran` says what the notebooks ran on, empty where the stored outputs are shown."""
    about = f"Run on <strong>{html.escape(ran)}</strong>, {date.today().isoformat()}." if ran else STORED
    return f'<p class="facts">{about}</p>\n<ul class="series">\n{"".join(map(_item, entries))}</ul>\n'


def _item(entry: Entry) -> str:
    name = f'<a href="{entry.page}">{html.escape(entry.title)}</a>'
    picture = f'<img src="data:image/jpeg;base64,{entry.picture}" alt="">' if entry.picture else ""
    took = f"ran in {minutes(entry.seconds)}" if entry.seconds is not None else ""
    status = f'<p class="status failed">{html.escape(entry.failure)}</p>' if entry.failure else ""
    status = status or (f'<p class="status">{took}</p>' if took else "")
    return f'<li><div>{picture}</div><div><span class="title">{name}</span>{entry.promise}{status}</div></li>\n'
