"""The panels in Voila: a page of widgets without a notebook around them, served from this machine alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from benchmarks.jupyter_lab import ROOT, Lab, free_port, serving

pytestmark = pytest.mark.browser

PAGE = """\
import json, os, pathlib
import perfnb
from IPython.display import display
folder = pathlib.Path(os.environ["PERFNB_SAMPLES"]) / "slow_loader"
run = perfnb.read_trace(folder)
config = json.loads((folder / "config.json").read_text())
display(perfnb.diagnose(run), perfnb.whatif_panel(run, config))"""


# what Voila's own page template asks for, whatever the notebook holds
OF_VOILA = "https://cdn.jsdelivr.net/npm/@fortawesome/fontawesome-free@"


@pytest.fixture
def screen(opened_chromium: Any) -> Generator[Any]:
    """A page that reaches this machine only, and may ask for nothing else but the icons of Voila's template."""
    context = opened_chromium.new_context(viewport={"width": 1280, "height": 1400})
    context.set_default_timeout(float(os.environ.get("PERFNB_BROWSER_TIMEOUT_S", "180")) * 1000)
    refused: list[str] = []
    errors: list[str] = []

    def judge(route: Any) -> None:
        if urlsplit(route.request.url).hostname in ("127.0.0.1", None):
            route.continue_()
        else:
            refused.append(route.request.url)
            route.abort()

    context.route("**/*", judge)
    shown = context.new_page()
    shown.on("pageerror", lambda error: errors.append(str(error)))
    yield shown
    context.close()
    assert [address for address in refused if not address.startswith(OF_VOILA)] == []
    assert errors == []


def test_card_and_panel_work_in_voila(screen: Any, tmp_path: Path, screenshots: Path) -> None:
    pytest.importorskip("voila", reason="Voila is not installed: pip install 'perfnb[browser]'")
    Lab("", tmp_path).write("page.ipynb", PAGE)
    port = free_port()
    command = [
        *(sys.executable, "-m", "voila", str(tmp_path / "page.ipynb"), "--no-browser", f"--port={port}"),
        *("--Voila.ip=127.0.0.1", "--ServerApp.open_browser=False"),
    ]
    folders = {
        name: str(tmp_path / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    }
    environment = {
        **os.environ,
        **folders,
        "JUPYTER_PLATFORM_DIRS": "1",
        "PYTHONPATH": str(ROOT),
        "PERFNB_SAMPLES": str(ROOT / "data" / "samples"),
    }
    with serving(command, environment, f"http://127.0.0.1:{port}", "/static/favicon.ico", tmp_path) as address:
        screen.goto(address)
        screen.get_by_text("Waiting for data takes").first.wait_for()
        screen.locator(".vega-embed svg").first.wait_for()
        screen.locator(".noUi-handle").first.focus()
        screen.keyboard.press("ArrowRight")
        screen.locator('[role="status"]').first.filter(has_text="num_workers 0 -> 1").wait_for()
        screen.get_by_role("button", name="Apply", exact=True).click()
        screen.get_by_text("Applied: num_workers 0 -> 1").wait_for()
        screen.screenshot(path=screenshots / "voila.png")
