"""`tools/build_series.py` on a tiny series: pages, links, front page, failures, and notebooks left as they were."""

import base64
import io
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tools" / "build_series.py"
sys.path.insert(0, str(SCRIPT.parent))
main, minutes = import_module("build_series").main, import_module("series_index").minutes

BAR = new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "a stored bar"})

FIRST = [
    new_markdown_cell(
        "# 00 Begin & go\n\nA *promise* with `code`.\n\n[01 Fail](01_fail.ipynb)\n\n> Not for clinical use"
    ),
    new_markdown_cell(
        "[down](#there) [next](01_fail.ipynb#a-place) [solved](solutions/00_solutions.ipynb) [notes](notes.txt) "
        "[out](https://example.org/a.ipynb) [nowhere](09_later.ipynb)"
    ),
    new_code_cell("from pathlib import Path\nprint('notes say', Path('notes.txt').read_text())"),
    new_code_cell("import os\nprint(os.environ['MEDSAM_DATA'], os.environ['MEDSAM_MODEL'])"),
    new_code_cell(
        "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()\nunseen = 1",
        outputs=[new_output("stream", name="stdout", text="an output of long ago")],
    ),
    new_code_cell(
        "from tqdm.auto import tqdm\nfor _ in tqdm(range(3), desc='a living bar'): pass", outputs=[BAR.copy()]
    ),
]
FAILS = [
    new_markdown_cell("# 01 Fail\n\nIt fails.\n\n[00](00_begin.ipynb)"),
    new_code_cell("print('so far')"),
    new_code_cell("unseen  # of another notebook: this kernel is fresh", metadata={"tags": ["raises-exception"]}),
    new_code_cell("# the third cell\nraise ValueError('first line\\nno such thing')"),
    new_code_cell("print('never reached')"),
]
LAST = [new_markdown_cell("# 02 End\n\nThe end."), new_code_cell("print(6 * 7)")]
SOLVED = [
    new_markdown_cell("# 00 Solutions\n\nOf [00](../00_begin.ipynb)."),
    new_code_cell("raise SystemExit  # never run", outputs=[new_output("stream", name="stdout", text="00.1: correct")]),
]


def run(*arguments, cwd, **environment):
    given = {name: value for name, value in os.environ.items() if not name.startswith("MEDSAM_")}
    command = [sys.executable, SCRIPT, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=given | environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """The folder of a tiny series, before it was run: three notebooks, the second of which fails."""
    folder = tmp_path_factory.mktemp("series")
    files = {"00_begin": FIRST, "01_fail": FAILS, "02_end": LAST, "solutions/00_solutions": SOLVED}
    for name, cells in files.items():
        path = folder / "notebooks" / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(new_notebook(cells=cells), path)
    (folder / "notebooks" / "notes.txt").write_text("hello")
    for part in ("images", "masks"):
        (folder / "mine" / part).mkdir(parents=True)
    return folder


@pytest.fixture(scope="module")
def built(series):
    """What the script printed, the pages by name, and the files of the series before and after."""
    before = contents(series)
    done = run(
        "--notebooks", "notebooks", "--output", "build/html", "--data", "mine", "--model", "lite-medsam",
        cwd=series, MPLBACKEND="Agg",
    )  # fmt: skip
    output = series / "build" / "html"
    pages = {page.relative_to(output).as_posix(): page.read_text() for page in output.rglob("*.html")}
    return done, pages, (before, contents(series))


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file() and "build" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def links(page):
    return dict(re.findall(r'<a\b[^>]*?href="([^"]*)"[^>]*>([^<]*)', page))


def test_every_notebook_and_its_solutions_have_a_page(built):
    names = {"index.html", "00_begin.html", "01_fail.html", "02_end.html", "solutions/00_solutions.html"}
    assert built[1].keys() == names


def test_the_notebooks_are_left_as_they_were(built):
    before, after = built[2]
    assert after == before


def test_cells_run_anew_in_the_notebooks_folder_on_the_data_and_model_asked_for(built, series):
    page = built[1]["00_begin.html"]
    assert "notes say hello" in page
    assert f"{(series / 'mine').resolve()} lite-medsam" in page
    assert "an output of long ago" not in page
    assert 'src="data:image/png;base64,' in page, "MPLBACKEND=Agg would have kept the picture out"


def test_progress_bars_are_left_out(built):
    assert not re.search("a stored bar|a living bar:", built[1]["00_begin.html"])


def test_each_kernel_is_fresh(built):
    assert re.search(r"name .*unseen.* is not defined", re.sub(r"<[^>]*>", "", built[1]["01_fail.html"]))


def test_links_between_the_pages_work(built, series):
    found = links(built[1]["00_begin.html"])
    assert found.keys() >= {
        "#there", "01_fail.html#a-place", "solutions/00_solutions.html", "index.html",
        "https://example.org/a.ipynb", "09_later.ipynb",
    }  # fmt: skip
    assert links(built[1]["solutions/00_solutions.html"]).keys() >= {"../00_begin.html", "../index.html"}
    for name, page in built[1].items():
        folder = (series / "build" / "html" / name).parent
        lost = [
            link for link in links(page) if not re.match("https?:|#", link) and not (folder / target(link)).exists()
        ]
        assert lost == (["09_later.ipynb"] if name == "00_begin.html" else [])


def target(link):
    return link.partition("#")[0]


def test_solutions_are_shown_as_stored(built):
    assert "00.1: correct" in built[1]["solutions/00_solutions.html"]


def test_a_failing_cell_is_told_in_one_line_and_the_others_go_on(built):
    done, pages, _ = built
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "build_series: 01_fail.ipynb, cell [3] '# the third cell': ValueError: no such thing"
    ]
    assert "so far" in pages["01_fail.html"]
    assert "no such thing" in pages["01_fail.html"]
    assert ">42" in re.sub(r"\s", "", pages["02_end.html"])


def test_a_line_of_progress_for_each_notebook_and_where_to_look_at_last(built):
    first, *lines = built[0].stdout.splitlines()
    assert re.search(r"^3 notebooks, on model lite-medsam, data .*mine", first)
    shapes = [
        r"00 Begin & go +\d+ s  ran",
        r"01 Fail +\d+ s  failed",
        r"02 End +\d+ s  ran",
        r"2 of 3 notebooks ran, in .*",
    ]
    assert [bool(re.fullmatch(shape, line)) for shape, line in zip(shapes, lines, strict=False)] == [True] * 4, lines
    assert lines[4:] == ["Open build/html/index.html in a browser"]


def test_the_front_page_stands_alone_and_says_what_happened(built):
    page = built[1]["index.html"]
    assert not re.search(r"<link|<script|(src|href)=\"(https?:|//)|url\(", page), "loads something"
    assert links(page) | {"": ""} == {
        "00_begin.html": "Begin &amp; go", "01_fail.html": "Fail", "02_end.html": "End",
        "solutions/00_solutions.html": "solutions", "": "",
    }  # fmt: skip
    assert "A <em>promise</em> with <code>code</code>." in page
    rows = re.findall(r'<tr class="(\w+)">', page)
    assert rows == ["ran", "failed", "ran"]
    assert "ValueError: no such thing" in page
    (picture,) = re.findall(r"data:image/jpeg;base64,([^\"]+)", page)
    assert max(Image.open(io.BytesIO(base64.b64decode(picture))).size) <= 560


def test_it_succeeds_where_nothing_fails_and_computes_as_the_stored_outputs_were(series, tmp_path):
    cells = [
        new_markdown_cell("# 00 Alone"),
        new_code_cell("import os\nassert os.environ['MEDSAM_PRECISION'] == 'fp32'"),
    ]
    nbformat.write(new_notebook(cells=cells), tmp_path / "00_alone.ipynb")
    done = run("--notebooks", ".", "--output", "out", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 of 1 notebooks ran" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--data", "kvsir"], "no data source 'kvsir'"),
        (["--model", "mobil-sam"], "no model 'mobil-sam'"),
        (["--notebooks", "mine"], "mine holds no notebook"),
        (["--output", "notebooks/notes.txt"], "is a file"),
    ],
)
def test_a_slip_is_told_before_anything_runs(series, arguments, why, monkeypatch, capsys):
    monkeypatch.chdir(series)
    assert main(["--notebooks", "notebooks", *arguments]) == 2
    told = capsys.readouterr()
    assert why in told.err
    assert (told.err.count("\n"), told.out) == (1, "")


def test_durations_are_said_as_a_person_says_them():
    assert [minutes(seconds) for seconds in (0.4, 59.4, 59.6, 125)] == ["0 s", "59 s", "1 min 0 s", "2 min 5 s"]


def test_make_tutorial_passes_data_and_model_on():
    # A make that was called by another make (`make test`) would also say which directory it enters and leaves.
    command = ["make", "--no-print-directory", "--dry-run", "--assume-old=.venv/installed.stamp", "tutorial"]
    for given, wanted in {
        (): "tools/build_series.py --output build/html",
        ("DATA=my images", "MODEL=lite-medsam"): "--output build/html --data 'my images' --model 'lite-medsam'",
    }.items():
        done = subprocess.run([*command, *given], cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout.strip().endswith(wanted)
