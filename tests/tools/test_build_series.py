"""`tools/build_series.py` on a tiny series: pages, links, solutions, failures, and notebooks left as they were."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import course
import nbformat
import pytest
import store_outputs
from build_series import main
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import medsam_helpers

ROOT = Path(__file__).parents[2]
CORRECT = [new_output("stream", name="stdout", text="correct, as it is stored")]
BAR = [new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "a stored bar"})]
LINKS = "[a](#there) [b](01_fail.ipynb#a-place) [c](solutions/00_solutions.ipynb) [d](../LICENSE)"
READS = "import os\nprint(open('notes.txt').read(), os.environ['MEDSAM_DATA'], os.environ['MEDSAM_MODEL'])"
SERIES = {
    "00_begin": [
        new_markdown_cell("# 00 Begin & go\n\nA *promise* with `code`.\n\n> Not for clinical use"),
        new_markdown_cell(f"## Round one\n\n{LINKS} [f](https://example.org/a.ipynb)\n\n$$\\frac{{1}}{{2}}$$"),
        new_code_cell(READS, outputs=CORRECT),
        new_code_cell("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()\nunseen = print('1 and 2')"),
        new_code_cell("from medsam_helpers import check\ncheck('00.1', None) if False else None"),
        new_code_cell("from tqdm.auto import tqdm\nfor _ in tqdm(range(3), desc='a living bar'): pass", outputs=BAR),
    ],
    "01_fail": [
        new_markdown_cell("# 01 Fail\n\nIt fails."),
        new_code_cell("unseen  # of another notebook: this kernel is fresh", metadata={"tags": ["raises-exception"]}),
        new_code_cell("# the second cell\nraise ValueError('first line\\nno such thing')"),
    ],
    "02_end": [new_markdown_cell("# 02 End\n\nThe end."), new_code_cell("print(6 * 7)")],
    "solutions/00_solutions": [
        new_markdown_cell("# 00 Solutions\n\nOf [00](../00_begin.ipynb)."),
        new_code_cell("raise SystemExit  # never run", outputs=CORRECT),
        new_markdown_cell("## 00.1 One\n\nIt is two."),
        new_code_cell("answer = 2"),
    ],
}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with three notebooks, the second of which fails; what the script printed there; the pages by name."""
    folder = tmp_path_factory.mktemp("series")
    for part in ("notebooks/solutions", "mine/images", "mine/masks"):
        (folder / part).mkdir(parents=True)
    for name, cells in SERIES.items():
        nbformat.write(new_notebook(cells=cells), folder / "notebooks" / f"{name}.ipynb")
    (folder / "notebooks" / "notes.txt").write_text("hello")
    stored = {path: path.read_bytes() for path in folder.rglob("*.*")}

    environment = {name: value for name, value in os.environ.items() if not name.startswith("MEDSAM_")}
    command = [sys.executable, ROOT / "tools" / "build_series.py", "--notebooks", "notebooks", "--output", "pages"]
    options = {"cwd": folder, "env": environment | {"MPLBACKEND": "Agg"}, "capture_output": True, "text": True}
    done = subprocess.run([*command, "--data", "mine", "--model", "lite-medsam"], **options, check=False)
    assert {path: path.read_bytes() for path in stored} == stored, "the notebooks are left as they were"
    pages = {page.relative_to(folder / "pages").as_posix(): page.read_text() for page in folder.rglob("*.html")}
    return folder, done, pages


def links(page):
    return dict(re.findall(r'<a\b[^>]*?href="([^"]*)"[^>]*>([^<]*)', page))


def test_cells_run_anew_in_the_notebooks_folder_on_the_data_and_model_asked_for(built):
    folder, _, pages = built
    page = pages["notebooks/00_begin.html"]
    assert f"hello {(folder / 'mine').resolve()} lite-medsam" in page
    assert not re.search("a stored bar|a living bar:", page)
    # MPLBACKEND=Agg would have kept the picture out.
    assert re.search(r'<img alt="Figure, Round one: 1 and 2"[^>]* src="[^"]*[.]png"', page)
    assert re.search(r"name .*unseen.* is not defined", pages["notebooks/01_fail.html"]), "each kernel is fresh"
    assert "as it is stored" in pages["notebooks/solutions/00_solutions.html"], "solutions are not run"


def test_links_between_the_pages_work(built):
    folder, _, pages = built
    asked = {"#there", "01_fail.html#a-place", "https://example.org/a.ipynb", "solutions/00_solutions.html"}
    assert links(pages["notebooks/00_begin.html"]).keys() >= asked
    for name, page in pages.items():
        inside = [link for link in links(page) if not re.match("https?:|#", link)]
        beside = (folder / "pages" / name).parent
        assert [link for link in inside if not (beside / link.partition("#")[0]).exists()] == [], name


def test_a_solution_is_folded_below_its_exercise_and_not_in_the_download(built):
    folder, page = built[0], built[2]["notebooks/00_begin.html"]
    folded = re.search(r"(?s)<details class='solution'><summary>Solution of 00.1</summary>(.*?)</details>", page)[1]
    assert re.sub("<[^>]*>", "", folded).split() == ["It", "is", "two.", "answer", "=", "2"]
    assert "Solution of 00.1" not in (folder / "pages/_sources/notebooks/00_begin.ipynb").read_text()


def test_every_exercise_of_the_course_has_a_solution_to_fold():
    lacking = []
    for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        solved = course.solutions_of(SimpleNamespace(srcdir=ROOT), path.stem)
        asked = [number for _, number in course.exercises_in(json.loads(path.read_text(encoding="utf-8")))]
        assert asked, path.name
        lacking += [number for number in asked if f'check("{number}"' not in solved.get(number, "")]
    assert lacking == [], "each has a heading of its own among the solutions, and its answer below it"


def test_a_failing_cell_is_told_in_one_line_and_the_others_go_on(built):
    _, done, pages = built
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if line.startswith("build_series")]
    assert said == ["build_series: 01_fail.ipynb, cell [2] '# the second cell': ValueError: no such thing"]
    assert "no such thing" in pages["notebooks/01_fail.html"]
    assert ">42" in re.sub(r"\s", "", pages["notebooks/02_end.html"])
    assert re.search(r"^01 Fail +\d+ s  failed\n02 End +\d+ s  ran\n2 of 3 notebooks ran", done.stdout, re.MULTILINE)


def test_the_front_page_says_what_happened(built):
    page = built[2]["index.html"]
    listed = re.findall(r'<span class="title"><a href="notebooks/(\w+)[.]html">([^<]*)', page)
    assert listed == [("00_begin", "00 Begin &amp; go"), ("01_fail", "01 Fail"), ("02_end", "02 End")]
    assert "A <em>promise</em> with <code>code</code>." in page
    assert "failed in cell [2] &#x27;# the second cell&#x27;: ValueError: no such thing" in page
    assert page.count("data:image/jpeg;base64,") == 1


def test_the_reference_has_every_public_name_and_tells_nothing_of_this_machine(built):
    page = built[2]["api.html"]
    names = {name.rpartition(".")[2] for name in re.findall(r'id="(medsam_helpers[.\w]+)"', page)}
    assert set(medsam_helpers.__all__) - names == {"__version__", "COLORS"}
    text = re.sub(r"<[^>]*>", "", page)
    assert "environment=os.environ" in text
    assert "of a model space of 1024; 0: exact boxes." in text, "a colon in a setting's text makes no type of it"


def test_launch_buttons_appear_where_the_repository_is_known(monkeypatch):
    addresses = {"git@github.com:some-one/med.sam.git\n": "https://github.com/some-one/med.sam", "https://a.org/b": ""}
    for address, known in addresses.items():
        monkeypatch.setenv("MEDSAM_REPOSITORY", address)
        course.repository.cache_clear()
        assert course.repository() == known
    monkeypatch.setattr(course, "repository", lambda: "https://github.com/a/b")
    urls = {link["text"]: link["url"] for link in course.launch_links("notebooks/00_x")}
    assert urls["Colab"] == "https://colab.research.google.com/github/a/b/blob/main/notebooks/00_x.ipynb"


def test_a_slip_is_told_before_anything_runs(capsys):
    for slip, why in (("--data kvsir", "no data source 'kvsir'"), ("--notebooks tests", "tests holds no notebook")):
        assert main(slip.split()) == 2
        told = capsys.readouterr()
        assert (why in told.err, told.err.count("\n"), told.out) == (True, 1, "")


def test_outputs_are_stored_without_bars_and_a_failing_notebook_stays_as_it_was(tmp_path):
    for name in ("01_fail", "02_end"):
        nbformat.write(new_notebook(cells=[*SERIES[name], SERIES["00_begin"][-1]]), tmp_path / f"{name}.ipynb")
    failing = (tmp_path / "01_fail.ipynb").read_bytes()
    status = store_outputs.main(["--notebooks", str(tmp_path)])
    assert (status, (tmp_path / "01_fail.ipynb").read_bytes()) == (1, failing)
    *_, end, bar = nbformat.read(tmp_path / "02_end.ipynb", as_version=4).cells
    assert (end.execution_count, end.outputs[0].text, end.metadata, bar.outputs) == (1, "42\n", {}, [])


def test_make_tutorial_passes_data_and_model_on():
    # A make that was called by another make (`make test`) would also say which directory it enters and leaves.
    command = ["make", "--no-print-directory", "--dry-run", "--assume-old=.venv/installed.stamp", "tutorial"]
    done = subprocess.run([*command, "DATA=my images"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("tools/build_series.py --output build/html --data 'my images'")
