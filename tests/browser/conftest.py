"""A real JupyterLab in a real Chromium, each with folders of its own; nothing outside this machine may be asked for."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
START_S = 120
FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# The text of the first error, "done" once every code cell has its number, else false.
_FINISHED = """() => {
    const error = document.querySelector('[data-mime-type="application/vnd.jupyter.stderr"]');
    if (error) return error.textContent;
    const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')];
    return prompts.length && prompts.every(prompt => /\\[\\d+\\]/.test(prompt.textContent)) ? 'done' : false;
}"""


@dataclass
class Lab:
    """A running JupyterLab: where it listens, and the folder that it serves."""

    address: str
    folder: Path

    def write(self, name: str, *cells: str) -> str:
        """Put a notebook with these code cells into the folder; the address that opens it."""
        code = [
            {"cell_type": "code", "id": f"cell{number}", "execution_count": None, "metadata": {}, "outputs": [], "source": source}
            for number, source in enumerate(cells)
        ]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        notebook = {"cells": code, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
        (self.folder / name).write_text(json.dumps(notebook), encoding="utf-8")
        return self.url(name)

    def url(self, name: str) -> str:
        """The address that opens a notebook of the folder, with no workspace left from before."""
        return f"{self.address}/lab/tree/{name}?reset"

    def stop_kernels(self) -> None:
        """Shut every kernel down."""
        with urllib.request.urlopen(f"{self.address}/api/sessions", timeout=30) as answer:
            sessions = json.load(answer)
        for session in sessions:
            request = urllib.request.Request(f"{self.address}/api/sessions/{session['id']}", method="DELETE")
            urllib.request.urlopen(request, timeout=30).close()


@dataclass
class Seen:
    """What a page did that it must not do."""

    outside: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of Chromium."""
    found = os.environ.get("PERFNB_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        pytest.skip("no chromium: install Debian's chromium, or name one in PERFNB_CHROMIUM")
    return found


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Generator[Lab]:
    """JupyterLab on a free port."""
    pytest.importorskip("jupyterlab", reason="JupyterLab is not installed: pip install 'perfnb[lab]'")
    home = tmp_path_factory.mktemp("lab")
    folders = {name: home / name for name in ("config", "data", "runtime", "workspaces", "settings", "ipython", "notebooks")}
    for folder in folders.values():
        folder.mkdir()
    # the question whether to fetch news would lie over the notebook
    (folders["settings"] / "@jupyterlab" / "apputils-extension").mkdir(parents=True)
    (folders["settings"] / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings").write_text(
        '{"fetchNews": "false"}'
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(folders["config"]),
        "JUPYTER_DATA_DIR": str(folders["data"]),
        "JUPYTER_RUNTIME_DIR": str(folders["runtime"]),
        "JUPYTERLAB_WORKSPACES_DIR": str(folders["workspaces"]),
        "JUPYTERLAB_SETTINGS_DIR": str(folders["settings"]),
        "IPYTHONDIR": str(folders["ipython"]),
        "JUPYTER_PLATFORM_DIRS": "1",
        "PYTHONPATH": str(ROOT),
        "PERFNB_SAMPLES": str(ROOT / "data" / "samples"),
    }
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"),
        *(
            "--ServerApp.port_retries=0",
            "--ServerApp.disable_check_xsrf=True",
            "--IdentityProvider.token=",
            "--ServerApp.password=",
            f"--ServerApp.root_dir={folders['notebooks']}",
        ),
        *("--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"),
    ]
    with (home / "lab.log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=home)
        try:
            address = f"http://127.0.0.1:{port}"
            _wait(server, address, home / "lab.log")
            yield Lab(address, folders["notebooks"])
        finally:
            server.terminate()
            try:
                server.wait(timeout=30)
            except subprocess.TimeoutExpired:  # a loaded machine; there is nothing left that it should save
                server.kill()
                server.wait(timeout=30)


def _wait(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if server.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{address}/api", timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text(errors='replace')[-3000:]}")


@pytest.fixture(scope="session")
def opened_chromium(chromium: str) -> Generator[Any]:
    """A headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install 'perfnb[browser]'")
    flags = [*FLAGS, *(["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else [])]
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=chromium, args=flags)
        yield opened
        opened.close()


@pytest.fixture
def screen(opened_chromium: Any) -> Generator[Any]:
    """A page that must ask for nothing outside this machine and raise no error."""
    context = opened_chromium.new_context(viewport={"width": 1280, "height": 1400})
    context.set_default_timeout(60_000)
    seen = Seen()
    shown = context.new_page()
    context.on("request", lambda request: _judge(request.url, seen))
    shown.on("pageerror", lambda error: seen.errors.append(str(error)))
    yield shown
    context.close()
    assert seen.outside == [], "the page asked for addresses outside this machine"
    assert seen.errors == [], "the page raised errors"


def _judge(address: str, seen: Seen) -> None:
    parts = urlsplit(address)
    if parts.scheme not in ("data", "blob", "file", "about") and parts.hostname != "127.0.0.1":
        seen.outside.append(address)


@pytest.fixture
def run_all(screen: Any, lab: Lab) -> Generator[Callable[..., Any]]:
    """Open a notebook, with these code cells where there are any, run all cells, wait until they are done; the page."""

    def run(name: str, *cells: str) -> Any:
        screen.goto(lab.write(name, *cells) if cells else lab.url(name))
        return _run_all(screen)

    yield run
    lab.stop_kernels()


def _run_all(page: Any) -> Any:
    page.locator(".jp-Notebook").wait_for()
    page.locator(".jp-StatusBar-Left", has_text="| Idle").wait_for()
    page.locator(".lm-MenuBar-itemLabel", has_text="Run").first.click()
    page.locator(".lm-Menu-itemLabel", has_text="Run All Cells").first.click()
    done = page.wait_for_function(_FINISHED).json_value()
    assert done == "done", done
    return page


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    """Folder for pictures: PERFNB_SCREENSHOTS where it is named, else one that pytest deletes."""
    folder = Path(os.environ.get("PERFNB_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
