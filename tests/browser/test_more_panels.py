"""Monitor, training and compare panels, config files, the dark theme and hostile names, in a real JupyterLab."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser

RunAll = Callable[..., Any]

MONITOR = """\
import time, threading
import perfnb
%load_ext perfnb
recorder = perfnb.record(hooks=False).start()
for step in recorder.steps(range(5)):
    time.sleep(0.02)"""

TRAIN = """\
for step in recorder.steps(range(200)):
    time.sleep(0.05)"""

LEFT = "sorted(each.name for each in threading.enumerate() if each.name.startswith('perfnb'))"

TRAINING = """\
import json, os, pathlib, tempfile
import perfnb
%load_ext perfnb
from perfnb.training.examples import curve_run, decay
import numpy as np
losses = np.concatenate([decay(400), 0.5 + np.arange(200) * 0.01])
losses[::40] *= 3.0
run = curve_run(losses, config={"learning_rate": 0.1, "planned_steps": 1000})
file = pathlib.Path(tempfile.mkdtemp()) / "train.yaml"
_ = file.write_text("learning_rate: 0.1  # mine\\n")"""

COMPARE = """\
samples = pathlib.Path(os.environ["PERFNB_SAMPLES"]) / "slow_loader"
before, after = samples, samples / "after"
one, two = (json.loads((each / "config.json").read_text()) for each in (before, after))
first, second = (perfnb.read_trace(each) for each in (before, after))"""

HOSTILE = """\
import numpy as np, pandas as pd, perfnb
%load_ext perfnb
from perfnb.panels.monitor import MonitorPanel
from perfnb.read.newest import Device, Now, RankNow
from perfnb.run import Run
from perfnb.training.examples import curve_run
name = '<img src=x onerror="window.pwn=1">\\x1b[31m\\u202e{{7*7}}${7*7}</script><script>window.pwn=1</script>'
vega = "datum.x; window.pwn = 1; //" + "x" * 10_000_000
loss = curve_run([2.0, 1.5, float("nan"), float("nan")], config={"learning_rate": 0.1, name: vega, vega: name})
loss = Run(training=loss.training, config=loss.config, source=(name, vega), notes=(vega,))
device = Device(0, {"utilization_share": 0.5}, {"power_w": vega, "sm_clock_mhz": name})
now = Now((RankNow(0, name, "failed", vega, 1.0, 3, devices=(device,), host_reasons={"": vega}),), 1, ((vega, -1.0, 0.5),))
rows = pd.DataFrame({"name": [name, vega], "change": "slower", "time_before_us": 1.0, "time_after_us": 2.0})
rows = rows.assign(difference_us=1.0, low_us=0.5, high_us=1.5)"""

HOSTILE_PANELS = """\
from IPython.display import display
from perfnb.panels.compare import ComparePanel, Comparison
from perfnb.findings import Diagnosis
from perfnb.verify import Outcome
answer = perfnb.Unknown(vega, name)
change = perfnb.Change(name, "a", vega)
rest = (None, None, None, None, name, name)
outcome = Outcome((change,), answer, "step_us", 100.0, 50.0, 45.0, 55.0, 1.8, 2.2, 30, 30, False, *rest)
nothing = Diagnosis((), (), (), ())
training = perfnb.training_panel(loss, home=name)
training.apply_button.click()
monitor = MonitorPanel(lambda: now, title=vega)
ways = {name: Comparison(rows), "b": Comparison(reason=vega)}
compare = ComparePanel(outcome=outcome, before=nothing, after=nothing, titles=(name, vega), comparisons=ways)
display(training, monitor, compare)
max(len(panel.snapshot().html) for panel in (training, monitor, compare)) < 200_000"""


@pytest.fixture
def dark(lab: Any) -> Generator[None]:
    """The dark theme."""
    lab.set_theme("JupyterLab Dark")
    yield
    lab.set_theme("JupyterLab Light")


def output(page: Any, number: int) -> str:
    """What a cell shows."""
    return str(page.locator(".jp-CodeCell").nth(number).locator(".jp-OutputArea-output").last.inner_text())


def run_cell(page: Any, number: int) -> None:
    """Run one cell by its keyboard shortcut; it may take its time."""
    page.locator(".jp-CodeCell").nth(number).locator(".cm-content").click()
    page.keyboard.press("Control+Enter")


def test_the_monitor_moves_while_a_cell_runs_and_stops_by_keyboard(run_all: RunAll, screenshots: Path) -> None:
    page = run_all("monitor.ipynb", MONITOR, "%perfnb_watch", "0", LEFT)
    job = page.locator(".jp-OutputArea td", has_text="running").first
    job.wait_for()
    page.locator(".jp-CodeCell").nth(2).locator(".cm-content").click()
    page.keyboard.press("Control+a")
    page.keyboard.type(TRAIN.replace("\n    ", "\n"))
    page.keyboard.press("Control+Enter")

    row = page.locator(".jp-OutputArea tr", has_text="running").first
    seen = row.inner_text()
    page.wait_for_function(
        "old => [...document.querySelectorAll('.jp-OutputArea tr')].some("
        "row => row.innerText.includes('running') && row.innerText !== old)",
        arg=seen,
    )
    assert "*" in page.locator(".jp-CodeCell").nth(2).locator(".jp-InputPrompt").inner_text()  # the cell still runs
    page.screenshot(path=screenshots / "monitor.png")
    page.wait_for_function("() => /\\d/.test([...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')][2].textContent)")

    page.get_by_role("button", name="Stop").focus()
    page.keyboard.press("Enter")
    page.get_by_text("stopped; the last one took").wait_for()
    run_cell(page, 3)
    page.wait_for_function("() => ![...document.querySelectorAll('.jp-CodeCell')][3].innerText.includes('perfnb-monitor')")


def test_the_monitors_thread_ends_with_its_last_view(run_all: RunAll) -> None:
    page = run_all("views.ipynb", MONITOR, "%perfnb_watch", LEFT)
    page.locator(".jp-OutputArea td", has_text="running").first.wait_for()
    run_cell(page, 2)
    page.wait_for_function("() => [...document.querySelectorAll('.jp-CodeCell')][2].innerText.includes('perfnb-monitor')")

    page.locator(".jp-CodeCell").nth(1).locator(".cm-content").click()
    page.keyboard.press("Control+a")
    page.keyboard.type("1")
    page.keyboard.press("Control+Enter")
    page.locator(".jp-OutputArea td", has_text="running").first.wait_for(state="detached")
    page.wait_for_timeout(1000)
    run_cell(page, 2)

    page.wait_for_function("() => ![...document.querySelectorAll('.jp-CodeCell')][2].innerText.includes('perfnb-monitor')")


def test_training_and_compare_panels_paint_step_and_apply_in_the_dark(dark: None, run_all: RunAll, screenshots: Path) -> None:
    page = run_all(
        "training.ipynb",
        TRAINING,
        "%perfnb_training run --config file",
        COMPARE,
        "%perfnb_compare first second --configs one two",
        "file.read_text()",
    )
    page.locator(".vega-embed svg").nth(2).wait_for()
    sentence = page.locator('[role="status"]').first
    first = sentence.inner_text()
    page.get_by_role("button", name="Next").click()
    page.wait_for_function("old => document.querySelector('[role=\"status\"]').innerText !== old", arg=first)
    page.get_by_role("button", name="Previous").click()
    sentence.filter(has_text=first.splitlines()[0][:60]).wait_for()
    page.screenshot(path=screenshots / "training-dark.png")

    apply = page.get_by_role("button", name=re.compile("without a probe"))
    for _ in range(3):
        if apply.is_enabled():
            break
        page.get_by_role("button", name="Next").click()
        page.wait_for_timeout(300)
    apply.click()
    page.get_by_role("button", name="Write train.yaml").click()
    page.get_by_text("What it held lies in train.yaml.").wait_for()
    run_cell(page, 4)
    page.wait_for_function("() => [...document.querySelectorAll('.jp-CodeCell')][4].innerText.includes('learning_rate: 0.0')")
    page.get_by_role("button", name="Undo learning_rate").click()
    page.get_by_text("Taken back: learning_rate").wait_for()
    run_cell(page, 4)
    page.wait_for_function(
        "() => [...document.querySelectorAll('.jp-CodeCell')][4].innerText.includes('learning_rate: 0.1  # mine')"
    )

    page.locator(".jp-OutputArea select").last.select_option(label="operators")
    page.get_by_text("more in the table").wait_for()
    page.locator(".jp-CodeCell").nth(3).scroll_into_view_if_needed()
    page.screenshot(path=screenshots / "compare-dark.png")


def test_hostile_names_act_in_no_further_view(run_all: RunAll, screenshots: Path) -> None:
    page = run_all("hostile-more.ipynb", HOSTILE, HOSTILE_PANELS)
    page.locator(".vega-embed svg").nth(2).wait_for()
    page.wait_for_timeout(500)
    page.screenshot(path=screenshots / "hostile-more.png")

    assert page.evaluate("window.pwn") is None
    assert page.locator(".jp-OutputArea script, .jp-OutputArea img[onerror]").count() == 0
    assert output(page, 1) == "True"
    assert "\u202e" not in page.locator(".jp-Notebook").inner_text()
