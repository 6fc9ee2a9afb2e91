"""A real JupyterLab in a real Chromium, each with folders of its own; nothing outside this machine may be asked for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from benchmarks.jupyter_lab import FLAGS, Lab, run_all_cells, started_lab

# what JupyterLab itself says on its console, whatever the notebook holds
_OF_LAB = ("Failed to load resource", "favicon", "Download the React DevTools")


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
    with started_lab(tmp_path_factory.mktemp("lab")) as started:
        yield started


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
    """A page that must ask for nothing outside this machine and raise no error, on its console neither."""
    context = opened_chromium.new_context(viewport={"width": 1280, "height": 1400})
    context.set_default_timeout(float(os.environ.get("PERFNB_BROWSER_TIMEOUT_S", "180")) * 1000)
    seen = Seen()
    shown = context.new_page()
    context.on("request", lambda request: _judge(request.url, seen))
    shown.on("pageerror", lambda error: seen.errors.append(str(error)))
    shown.on("console", lambda message: _listen(message, seen))
    yield shown
    context.close()
    assert seen.outside == [], "the page asked for addresses outside this machine"
    assert seen.errors == [], "the page raised errors"


def _judge(address: str, seen: Seen) -> None:
    parts = urlsplit(address)
    if parts.scheme not in ("data", "blob", "file", "about") and parts.hostname != "127.0.0.1":
        seen.outside.append(address)


def _listen(message: Any, seen: Seen) -> None:
    if message.type == "error" and not any(words in message.text for words in _OF_LAB):
        seen.errors.append(f"console: {message.text}")


@pytest.fixture
def run_all(screen: Any, lab: Lab) -> Generator[Callable[..., Any]]:
    """Open a notebook, with these code cells where there are any, run all cells, wait until they are done; the page."""

    def run(name: str, *cells: str) -> Any:
        screen.goto(lab.write(name, *cells) if cells else lab.url(name))
        run_all_cells(screen)
        return screen

    yield run
    lab.stop_kernels()


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    """Folder for pictures: PERFNB_SCREENSHOTS where it is named, else one that pytest deletes."""
    folder = Path(os.environ.get("PERFNB_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
