"""The site in a real browser: nothing leaves the machine, it fits a phone, search finds, axe finds nothing serious."""

import subprocess
import sys
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from lab import chromium

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
WIDTHS = {"desktop": 1280, "phone": 390}
LOOKED_AT = ["index", "RESULTS", "api", "notebooks/05_evaluate_the_model"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages, from the outputs that are stored in the notebooks."""
    folder = tmp_path_factory.mktemp("site") / "html"
    command = [sys.executable, ROOT / "tools" / "build_series.py", "--stored", "--output", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), "Sphinx warns of nothing"
    return folder


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


def pages_of(site):
    return sorted(page for page in site.rglob("*.html") if "_static" not in page.parts)


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS.keys())
def test_pages_ask_no_other_host_and_are_no_wider_than_the_screen(site, browser, width):
    context = browser.new_context(viewport={"width": width, "height": 900})
    asked, broken, wide = [], [], []
    context.on("request", lambda request: asked.append(request.url))
    page = context.new_page()
    page.on("pageerror", lambda error: broken.append(str(error)))
    # An icon that is still on its way when the next page is opened is not missing.
    page.on("requestfailed", lambda request: broken.append(request.url) if "ABORTED" not in request.failure else None)
    for path in pages_of(site):
        page.goto(path.as_uri())
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            wide.append(path.name)
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert (broken, wide) == ([], [])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_and_every_figure_has_a_text(site, browser, scheme):
    page, serious = browser.new_context(color_scheme=scheme, reduced_motion="reduce").new_page(), {}
    for path in (site / f"{name}.html" for name in LOOKED_AT):
        page.goto(path.as_uri())
        found = Axe().run(page).response["violations"]
        for hit in (hit for hit in found if hit["impact"] in ("serious", "critical")):
            serious[path.name, hit["id"]] = hit["nodes"][0]["html"]
        assert page.locator(".cell_output img:not([alt])").count() == 0, path.name
    assert serious == {}


def test_search_finds_and_a_solution_unfolds(site, browser):
    page = browser.new_context().new_page()
    page.goto(f"{(site / 'search.html').as_uri()}?q=Tversky")
    page.locator("#search-results a", has_text="Segmentation losses").first.click()
    solution = page.locator("details.solution").first
    code = solution.locator("pre").first
    assert not code.is_visible()
    solution.locator("summary").click()
    assert code.is_visible()
