"""Slider to repainted preview in a real JupyterLab, kernel and browser apart, on a run of 250,000 events; and first paint.

Run it on a quiet machine: `python -m benchmarks.browser_latency [--presses N] [--events N]`. It prints how busy the machine was.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any, Final

from benchmarks.jupyter_lab import FLAGS, started_lab

PRESSES: Final = 40
EVENTS: Final = 250_000
PAINTS: Final = 5

# A recorded run, its 40 steps repeated one after the other until it has so many events.
OPEN: Final = """\
import json, os, pathlib, time
import pandas as pd
import dataclasses
began = time.perf_counter()
import perfnb
folder = pathlib.Path(os.environ["PERFNB_SAMPLES"]) / "slow_loader"
one = perfnb.read_trace(folder)
config = json.loads((folder / "config.json").read_text())
times = -(-{events} // len(one.host_ops))
span = one.steps["start_us"].iloc[-1] + one.steps["duration_us"].iloc[-1]
count = len(one.steps)
def repeated(table, has_step):
    parts = [table.assign(start_us=table["start_us"] + n * span) for n in range(times)]
    if has_step:
        parts = [part.assign(step=part["step"] + n * count) for n, part in enumerate(parts)]
    return pd.concat(parts, ignore_index=True)
phases = pd.concat([one.phases.assign(step=one.phases["step"] + n * count) for n in range(times)], ignore_index=True)
run = dataclasses.replace(one, steps=repeated(one.steps, True), host_ops=repeated(one.host_ops, False), phases=phases)
print(f"{{len(run.host_ops):,}} events, {{len(run.steps):,}} steps")"""

PANEL: Final = "panel = perfnb.whatif_panel(run, config)\npanel"

# What the kernel alone takes for a move: predict, and everything that is sent.
KERNEL: Final = """\
spent = []
for number in range({presses}):
    began = time.perf_counter()
    panel.controls["num_workers"].widget.index = 1 + number % 4
    spent.append(1000 * (time.perf_counter() - began))
panel.reset_button.click()
print(json.dumps(spent))"""

# Each press: the first changes after it of the sentence; the chart follows at rest, 300 ms later.
WATCH: Final = """() => {
    window.moves = [];
    const sentence = document.querySelector('.jp-OutputArea [role="status"]').parentElement;
    const seen = () => {
        const move = window.moves[window.moves.length - 1];
        if (move && move.text === undefined) move.text = performance.now() - move.at;
    };
    new MutationObserver(seen).observe(sentence, {subtree: true, childList: true, characterData: true});
    document.addEventListener('keydown', () => window.moves.push({at: performance.now()}), true);
}"""


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--presses", type=int, default=PRESSES, help="how often the slider is moved")
    arguments.add_argument("--events", type=int, default=EVENTS, help="size of the run")
    asked = arguments.parse_args()
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - only where it runs

    chromium = os.environ.get("PERFNB_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    flags = [*FLAGS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with (
        tempfile.TemporaryDirectory() as home,
        started_lab(Path(home)) as lab,
        sync_playwright() as started,
    ):
        browser = started.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page(viewport={"width": 1280, "height": 1600})
        page.set_default_timeout(600_000)
        cold = []
        for name in ("first", "later"):  # the first kernel on a machine makes the script of charts, later ones read it
            page.goto(lab.write(f"{name}.ipynb", OPEN.format(events=asked.events), PANEL, KERNEL.format(presses=asked.presses)))
            page.locator(".jp-CodeCell").nth(2).wait_for()
            size = _run(page, 0)
            cold.append(_first_paint(page))
        print(size)
        kernel = json.loads(_run(page, 2))
        moves = _presses(page, asked.presses)
        first = [_first_paint(page) for _ in range(PAINTS)]
        browser.close()
    _print(kernel, moves, cold, first)


def _run(page: Any, number: int) -> str:
    """Run one cell; what it prints."""
    cell = page.locator(".jp-CodeCell").nth(number)
    cell.locator(".cm-content").click()
    page.keyboard.press("Control+Enter")
    return str(cell.locator(".jp-OutputArea-output").inner_text())


def _presses(page: Any, count: int) -> list[dict[str, float]]:
    """Move the slider by the keyboard, resting in between; what each press took, in milliseconds."""
    handle = page.locator(".noUi-handle").first
    handle.scroll_into_view_if_needed()
    handle.focus()
    page.evaluate(WATCH)
    for number in range(count):
        page.keyboard.press("ArrowRight" if number % 8 < 4 else "ArrowLeft")  # noqa: PLR2004 - up four, down four
        page.wait_for_timeout(900)  # past the answer at rest, which comes 300 ms after the move
    return [move for move in page.evaluate("window.moves") if "text" in move]


def _first_paint(page: Any) -> tuple[float, float]:
    """Run the panel's cell: for the first time in its kernel, or once more, when everything is imported.

    Returns
    -------
    tuple of float
        Milliseconds until its controls, sentence and bars are there, and until its chart is, too.
    """
    page.locator(".jp-CodeCell").nth(1).locator(".cm-content").click()
    page.evaluate("() => document.querySelectorAll('.vega-embed, [role=status]').forEach(each => (each.dataset.old = '1'))")
    began = page.evaluate("performance.now()")
    page.keyboard.press("Control+Enter")
    taken = []
    for wanted in ('[role="status"]:not([data-old])', ".vega-embed:not([data-old]) svg"):
        page.locator(f".jp-OutputArea {wanted}").first.wait_for()
        taken.append(float(page.evaluate("performance.now()") - began))
    return taken[0], taken[1]


def _print(
    kernel: list[float], moves: list[dict[str, float]], cold: list[tuple[float, float]], first: list[tuple[float, float]]
) -> None:
    whole = [move["text"] for move in moves]
    rows = {
        "kernel: predict and send": kernel,
        "slider to repainted sentence": whole,
        "of that outside the kernel": [each - statistics.median(kernel) for each in whole],
    }
    print(f"{'ms':<32}{'median':>9}{'p95':>9}{'n':>6}")
    for name, values in rows.items():
        print(f"{name:<32}{statistics.median(values):>9.1f}{_p95(values):>9.1f}{len(values):>6}")
    for kernel_name, (painted, drawn) in zip(("a machine's first kernel", "a later kernel"), cold, strict=True):
        print(f"first paint of {kernel_name}, its imports included: {painted:.0f} ms; with its chart: {drawn:.0f} ms")
    painted, drawn = (statistics.median(each) for each in zip(*first, strict=True))
    print(f"first paint, warm: {painted:.0f} ms; with its chart: {drawn:.0f} ms (medians of {len(first)})")
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    print(f"load of this machine (1, 5, 15 min): {load}, on {os.cpu_count()} cores")
    pressure = Path("/proc/pressure/cpu")
    if pressure.exists():
        print(f"PSI cpu: {pressure.read_text(encoding='ascii').splitlines()[0]}")


def _p95(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(0.95 * len(values)))]


if __name__ == "__main__":
    main()
