"""Browser tests are collected where Playwright and Chromium are: `make test-browser` brings both."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("playwright") else ["*.py"]
if not collect_ignore_glob:
    from lab import chromium_path

    if chromium_path() is None:
        collect_ignore_glob = ["*.py"]
