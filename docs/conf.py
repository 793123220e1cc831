"""Settings of the site; tools/build_series.py calls Sphinx with them. Nothing on a page may come from another host."""

import sys
from pathlib import Path
from typing import Any

from sphinx.ext import napoleon

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from course import repository  # noqa: E402  (it stands beside this file)

project = html_title = "MedSAM, step by step"
author = ""  # the theme would write "By"
html_show_copyright = False
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "course"]
nitpicky = False

myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # tools/build_series.py has run them
nb_merge_streams = True
nb_ipywidgets_js: dict[str, dict[str, str]] = {}  # by default scripts of a CDN
html_math_renderer = "mathml"  # of course.py: browsers draw it, no script is loaded

_sections_of = napoleon._process_docstring


def _docstring(app: Any, what: str, *about: Any) -> None:
    """Napoleon, but not for a setting's text: up to its first colon it would be taken for a type."""
    if what not in ("attribute", "data", "property"):
        _sections_of(app, what, *about)


napoleon._process_docstring = _docstring

default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signature has none of them then; the docstrings say shapes and units
autodoc_preserve_defaults = True  # as they are written: the value of `os.environ` is nobody's business

html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_css_files = ["course.css"]
html_favicon = "_static/favicon.svg"
html_use_index = False  # the page of the reference lists its names
html_last_updated_fmt = "%Y-%m-%d"
html_theme_options = {
    "navbar_persistent": [],
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": True,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "extra_footer": "Not for clinical use. Research and teaching only.",
    **({"repository_url": repository(), "use_repository_button": True} if repository() else {}),
}
