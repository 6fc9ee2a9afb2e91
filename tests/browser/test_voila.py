"""The panels in Voila: a page of widgets without a notebook around them, served from this machine alone."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

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
