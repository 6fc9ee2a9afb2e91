"""The panels in a real JupyterLab: what the mouse and the keyboard do reaches Python, and what Python answers is on screen."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser

RunAll = Callable[..., Any]

OPEN = """\
import json, os, pathlib
import perfnb
%load_ext perfnb
folder = pathlib.Path(os.environ["PERFNB_SAMPLES"]) / "slow_loader"
run = perfnb.read_trace(folder)
config = json.loads((folder / "config.json").read_text())"""

# 12 steps of 100 ms: 40 in the loader, 25 in plain Python, the rest computing.
TWO_FINDINGS = """\
import pandas as pd
import perfnb
%load_ext perfnb
phases = {"data": 40_000.0, "forward": 20_000.0, "backward": 15_000.0, "other": 25_000.0}
step = range(12)
steps = pd.DataFrame({"rank": 0, "step": step, "start_us": [1e5 * n for n in step], "duration_us": 1e5})
rows = [(0, n, name, wall) for n in step for name, wall in phases.items()]
rows = pd.DataFrame(rows, columns=["rank", "step", "phase", "wall_us"])
from perfnb.tables import conform
run = perfnb.Run(steps=conform("steps", steps), phases=conform("phases", rows), signals=frozenset({"steps", "phases", "loader"}))
config = {"num_workers": 0, "log_every_n_steps": 1}"""


def marks(page: Any) -> list[str]:
    """Texts that the chart on screen draws."""
    return page.locator(".vega-embed svg text").all_text_contents()


def rerun_last_cell(page: Any) -> str:
    """Run the last cell once more; what it prints."""
    cell = page.locator(".jp-CodeCell").last
    before = cell.locator(".jp-InputPrompt").inner_text()
    cell.locator(".cm-content").click()
    page.keyboard.press("Control+Enter")
    page.wait_for_function(
        "before => { const all = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')];"
        " const now = all[all.length - 1].textContent; return now !== before && /\\d/.test(now); }",
        arg=before,
    )
    return str(cell.locator(".jp-OutputArea-output").inner_text())


def test_a_slider_moves_text_and_chart_and_apply_changes_the_variable(run_all: RunAll, screenshots: Path) -> None:
    page = run_all("whatif.ipynb", OPEN, "%perfnb_whatif run --config config", 'config["num_workers"]')
    chart = page.locator(".vega-embed svg")
    chart.wait_for()
    status = page.locator('[role="status"]').first
    drawn = marks(page)
    assert "as recorded" in status.inner_text()

    slider = page.locator(".noUi-handle").first
    slider.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")

    status.filter(has_text="num_workers 0 -> 2").wait_for()
    assert re.search(r"-> [\d.]+ ms per step \([\d.]+-[\d.]+ ms, 80 %\)", status.inner_text())
    page.wait_for_function("old => document.querySelectorAll('.vega-embed svg text').length !== old", arg=len(drawn))
    assert "after the change" in marks(page)
    assert slider.evaluate("handle => handle === document.activeElement")

    page.get_by_role("button", name="Apply", exact=True).click()
    page.locator("ins", has_text='"num_workers": 2').wait_for()
    page.locator("del", has_text='"num_workers": 0').wait_for()
    page.screenshot(path=screenshots / "whatif.png")
    assert rerun_last_cell(page) == "2"

    page.get_by_role("button", name="Undo num_workers 0 -> 2").click()
    page.get_by_text("Taken back: num_workers 0 -> 2").wait_for()
    assert rerun_last_cell(page) == "0"


def test_the_what_if_panel_works_by_keyboard_alone(run_all: RunAll) -> None:
    page = run_all("keyboard.ipynb", OPEN, "%perfnb_whatif run --config config", 'config["num_workers"]')
    page.locator(".vega-embed svg").wait_for()

    page.locator(".noUi-handle").first.focus()
    page.keyboard.press("ArrowRight")
    page.get_by_role("button", name="Apply", exact=True).and_(page.locator(":enabled")).wait_for()
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Apply":
            break
    page.keyboard.press("Enter")

    page.get_by_text("Applied: num_workers 0 -> 1").wait_for()
    assert rerun_last_cell(page) == "1"


def test_a_quick_drag_ends_with_its_last_value_on_screen(run_all: RunAll) -> None:
    page = run_all("drag.ipynb", OPEN, "%perfnb_whatif run --config config")
    page.locator(".vega-embed svg").wait_for()
    handle = page.locator(".noUi-handle").first
    track = page.locator(".noUi-target").first.bounding_box()
    start = handle.bounding_box()

    page.mouse.move(start["x"] + start["width"] / 2, start["y"] + start["height"] / 2)
    page.mouse.down()
    for number in range(16):
        page.mouse.move(track["x"] + track["width"] * (number + 1) / 16, start["y"] + start["height"] / 2)
        time.sleep(0.02)
    page.mouse.up()

    # one second on a quiet machine (notebook design, section 8), three times that on a loaded one
    page.locator('[role="status"]').first.filter(has_text="num_workers 0 -> 16").wait_for(timeout=3_000)


def test_next_shows_the_next_finding_with_its_chart(run_all: RunAll, screenshots: Path) -> None:
    page = run_all("explore.ipynb", TWO_FINDINGS, "%perfnb_explore run --config config")
    page.locator(".vega-embed svg").wait_for()
    sentence = page.locator('[role="status"]').first
    assert "Waiting for data takes 40 %" in sentence.inner_text()

    page.get_by_role("button", name="Next").click()

    sentence.filter(has_text="25 %").wait_for()
    assert "Waiting for data" not in sentence.inner_text()
    assert page.get_by_role("button", name="Next").is_disabled()
    page.locator(".jp-OutputArea select").first.select_option(label="1: data_stall, 40 %")
    sentence.filter(has_text="Waiting for data takes 40 %").wait_for()
    page.get_by_text("Evidence", exact=True).click()
    page.get_by_role("columnheader", name="lost").wait_for()
    page.screenshot(path=screenshots / "explore.png")


def test_apply_in_the_explorer_shows_the_diff_and_changes_the_variable(run_all: RunAll) -> None:
    page = run_all("apply.ipynb", OPEN, "%perfnb_explore run --config config", 'config["num_workers"]')
    page.locator(".vega-embed svg").wait_for()

    page.get_by_role("button", name="Apply raise_num_workers").click()

    page.locator("ins", has_text="num_workers").wait_for()
    assert int(rerun_last_cell(page)) > 0
    page.get_by_role("button", name="Undo raise_num_workers").click()
    page.get_by_text("Taken back raise_num_workers").wait_for()
    assert rerun_last_cell(page) == "0"


def test_a_wrong_magic_says_what_is_wrong(screen: Any, lab: Any) -> None:
    screen.goto(lab.write("wrong.ipynb", "%load_ext perfnb\n%perfnb_explore nowhere"))
    screen.locator(".jp-Notebook").wait_for()
    screen.locator(".jp-StatusBar-Left", has_text="| Idle").wait_for()
    screen.locator(".jp-CodeCell .cm-content").click()

    screen.keyboard.press("Control+Enter")

    screen.get_by_text("no variable named nowhere holds a Run, and there is no file or folder of that name").wait_for()
    lab.stop_kernels()
