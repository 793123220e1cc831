"""JupyterLab on the loopback and a notebook in Debian's Chromium: what browser tests and benchmark drive."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.request import urlopen

import nbformat
from playwright.sync_api import Browser, BrowserContext, Locator, Page, sync_playwright

LOOPBACK = "127.0.0.1"
_LAB_OPTIONS = (
    "--no-browser",
    "--allow-root",
    f"--ServerApp.ip={LOOPBACK}",
    "--ServerApp.port_retries=0",
    # The page then offers its command registry, through which cells are run without guessing at menus.
    "--LabApp.expose_app_in_browser=True",
    "--JupyterNotebookApp.expose_app_in_browser=True",
    # What Lab would otherwise ask the internet for.
    "--LabApp.news_url=None",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--LabApp.extension_manager=readonly",
)

_KERNEL = "window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status"


def chromium_path() -> str | None:
    """Where Debian's Chromium is, or `MEDSAM_CHROMIUM`."""
    return os.environ.get("MEDSAM_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


@contextlib.contextmanager
def jupyter_lab(folder: Path) -> Iterator[str]:
    """A JupyterLab of this Python on a free port; gives its address with `{}` where the page's path goes."""
    token = secrets.token_hex(16)
    with socket.socket() as free:
        free.bind((LOOPBACK, 0))
        port = free.getsockname()[1]
    home = folder / ".jupyter"
    environment = os.environ | {
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "MEDSAM_PRECISION": "fp32",
    }
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.port={port}", f"--IdentityProvider.token={token}"]
    settings = home / "settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text('{"fetchNews": "false", "checkForUpdates": false, "doNotDisturbMode": true}')
    with (home / "log.txt").open("w") as log:
        server = subprocess.Popen(
            [*command, *_LAB_OPTIONS], cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            _wait_for(f"http://{LOOPBACK}:{port}/api?token={token}", server, home / "log.txt")
            yield f"http://{LOOPBACK}:{port}/lab/{{}}?token={token}&reset"
        finally:
            server.terminate()
            server.wait(20)


def _wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    for _ in range(240):
        if server.poll() is not None:
            raise RuntimeError(f"JupyterLab ended with {server.returncode}:\n{log.read_text()[-3000:]}")
        with contextlib.suppress(OSError), urlopen(address, timeout=2):
            return
        time.sleep(0.25)
    raise RuntimeError(f"JupyterLab did not answer within a minute:\n{log.read_text()[-3000:]}")


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, headless. Playwright only drives it: no browser is downloaded."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium_path(),
            args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking"],
        )
        yield browser
        browser.close()


class Notebook:
    """A page of JupyterLab with one notebook, of these cells, open in it; `folder` is what JupyterLab serves."""

    def __init__(
        self, context: BrowserContext, address: str, folder: Path, cells: Sequence[str], name: str = "demo.ipynb"
    ) -> None:
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, folder / name)
        self.folder, self.name = folder, name
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page: Page = context.new_page()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("websocket", lambda socket: self.requests.append(socket.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.address = address.format(f"tree/{name}")
        self.open()

    def open(self) -> None:
        self.page.goto(self.address)
        self.page.wait_for_function("window.jupyterapp?.commands?.hasCommand('notebook:run-all-cells')", timeout=60_000)
        self.page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=60_000)

    def run(self, index: int, wait: bool = False) -> None:
        """Start a cell, once the kernel is there, and wait for its end where told to."""
        self.page.wait_for_function(f"{_KERNEL} === 'idle'", timeout=60_000)
        self.page.evaluate("index => { jupyterapp.shell.currentWidget.content.activeCellIndex = index }", index)
        ended = "jupyterapp.commands.execute('notebook:run-cell')"
        self.page.evaluate(f"() => {ended}" if wait else f"() => {{ {ended} }}")

    def cell(self, index: int) -> Locator:
        return self.page.locator(".jp-Notebook .jp-CodeCell").nth(index)

    def output(self, index: int) -> str:
        """Run a cell and give the text that it prints."""
        self.run(index, wait=True)
        return self.cell(index).locator(".jp-OutputArea-output").inner_text().strip()

    def save(self) -> None:
        self.page.evaluate("jupyterapp.shell.currentWidget.context.save()")

    @property
    def widget(self) -> Locator:
        return self.page.locator(".box-prompt").first

    def outside_requests(self) -> list[str]:
        """Addresses asked for that are not on the loopback."""
        inside = ("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:", "about:")
        return [url for url in self.requests if not url.startswith(inside)]
