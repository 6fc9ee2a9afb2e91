"""Cards where a kernel is not: reopened, untrusted, exported; and with names that would act as markup if they could."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import perfnb
from perfnb.report import card, page
from perfnb.tutorial import copy_tutorial

pytestmark = pytest.mark.browser

RunAll = Callable[..., Any]

OPEN = """\
import json, os, pathlib
import perfnb
folder = pathlib.Path(os.environ["PERFNB_SAMPLES"]) / "slow_loader"
run = perfnb.read_trace(folder)
config = json.loads((folder / "config.json").read_text())"""

HOSTILE = """\
import pandas as pd, perfnb
%load_ext perfnb
from perfnb.findings import Cleared, Diagnosis, Finding, NotMeasured
from perfnb.fix import Suggestion
name = '<img src=x onerror="window.pwn=1">\\x1b\\u202e</script><script>window.pwn=1</script>'
rows = pd.DataFrame({"rank": [0], "step": [1], name: [name], "lost_us": [1e4]})
parts = pd.DataFrame({"clock": "host", "part": [name], "time_us": [1e5], "share": [1.0]})
found = Finding(name, name, 0.5, 0.4, 0.6, 5e4, 0.5, name, 1, (0,), (1, 2, 3), rows, name)
cleared, unmeasured = Cleared(name, name, 0.0, 0.05, name), NotMeasured(name, name, name)
diagnosis = Diagnosis((found, found), (), (cleared,), (unmeasured,), 1e5, 9e4, 1.1e5, name, parts, name, (name,))
prediction = perfnb.Prediction("step_us", 1e5, 5e4, 4e4, 6e4, name, (name,))
suggestion = Suggestion(name, (perfnb.Change(name, "a", name),), (name,), name, prediction, 0.9, name)"""

HOSTILE_PANELS = """\
from IPython.display import display
from perfnb.apply import apply, undo
from perfnb.charts import breakdown_chart
from perfnb.facts import breakdown
from perfnb.panels import BottleneckPanel, WhatIfPanel
edits = {"config": {name: "a"}, "on_apply": apply, "on_undo": undo, "home": name}
suggested = {name: suggestion.changes}
what_if = WhatIfPanel(title=name, knobs={name: "a"}, predict=lambda *_: prediction, suggested=suggested, parts=parts, **edits)
what_if.controls[name].value = name
what_if.apply_button.click()
chart = breakdown_chart(breakdown(parts))
explorer = BottleneckPanel(diagnosis, (suggestion,), chart=lambda *_: chart, how={name: (name,)}, **edits)
explorer.slots[0].button.click()
display(what_if, explorer)"""

SENTENCE = "Waiting for data takes"


def save(shown: Any) -> None:
    """Save the notebook and wait until it is on disk."""
    with shown.expect_response(lambda response: response.request.method == "PUT" and "/api/contents/" in response.url):
        shown.keyboard.press("Control+s")


def is_complete(shown: Any) -> bool:
    """Whether the card on screen has its sentence, its picture and its list of what was not measured."""
    shown.get_by_text(SENTENCE).first.wait_for()
    picture = shown.locator('.jp-RenderedHTML img[src^="data:image/svg+xml"]').first
    picture.wait_for()
    drawn = picture.evaluate("image => image.complete && image.naturalWidth > 300")
    return bool(drawn) and shown.get_by_text("Not measured (").count() > 0


def test_a_saved_card_is_complete_without_its_kernel(run_all: RunAll, lab: Any, screenshots: Path) -> None:
    shown = run_all("saved.ipynb", OPEN, "perfnb.diagnose(run)")
    assert is_complete(shown)
    save(shown)
    lab.stop_kernels()

    shown.goto(lab.url("saved.ipynb"))

    assert is_complete(shown)
    shown.screenshot(path=screenshots / "reopened.png")


def test_a_card_that_is_not_trusted_is_complete_and_looks_the_same(run_all: RunAll, lab: Any, screenshots: Path) -> None:
    shown = run_all("trusted.ipynb", OPEN, "perfnb.diagnose(run)")
    assert is_complete(shown)
    save(shown)
    trusted = shown.locator(".jp-RenderedHTML").first.screenshot(path=screenshots / "trusted.png")
    size = shown.locator(".jp-RenderedHTML").first.bounding_box()
    notebook = json.loads((lab.folder / "trusted.ipynb").read_text(encoding="utf-8"))
    # signatures follow the content: a mere copy would be trusted
    outputs = notebook["cells"][1]["outputs"][0]["data"]
    outputs["text/html"] = ["<script>window.pwn = 1</script>", *outputs["text/html"]]
    (lab.folder / "untrusted.ipynb").write_text(json.dumps(notebook), encoding="utf-8")

    shown.goto(lab.url("untrusted.ipynb"))

    assert is_complete(shown)
    assert shown.evaluate("window.pwn") is None
    shown.locator(".jp-RenderedHTML").first.screenshot(path=screenshots / "untrusted.png")
    after = shown.locator(".jp-RenderedHTML").first.bounding_box()
    assert (round(after["width"]), round(after["height"])) == (round(size["width"]), round(size["height"]))
    assert trusted


def test_hostile_names_act_in_no_view(run_all: RunAll, screenshots: Path) -> None:
    shown = run_all("hostile.ipynb", HOSTILE, "diagnosis", "suggestion", "prediction", "diagnosis.found[0]", HOSTILE_PANELS)
    shown.locator(".vega-embed svg").nth(1).wait_for()
    shown.wait_for_timeout(500)
    shown.screenshot(path=screenshots / "hostile.png")

    assert shown.evaluate("window.pwn") is None
    assert shown.locator(".jp-OutputArea script, .jp-OutputArea img[onerror]").count() == 0


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_an_exported_page_is_complete_alone_in_both_themes(
    opened_chromium: Any, repository: Path, tmp_path: Path, screenshots: Path, theme: str
) -> None:
    run = perfnb.read_trace(repository / "data" / "samples" / "slow_loader")
    diagnosis = perfnb.diagnose(run)
    file = tmp_path / "card.html"
    file.write_text(page(card(diagnosis, perfnb.suggest(run, {"num_workers": 0}, diagnosis))), encoding="utf-8")
    context = opened_chromium.new_context(color_scheme=theme)
    asked: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    shown = context.new_page()

    shown.goto(file.as_uri())

    shown.screenshot(path=screenshots / f"export-{theme}.png", full_page=True)
    assert shown.get_by_text(SENTENCE).first.is_visible()
    assert shown.locator("img").first.evaluate("image => image.complete && image.naturalWidth > 300")
    assert [address for address in asked if not address.startswith(("file:", "data:"))] == []
    context.close()


def test_the_tutorial_runs_and_renders(run_all: RunAll, lab: Any, tmp_path: Path, screenshots: Path) -> None:
    notebook = copy_tutorial(tmp_path / "work")
    shutil.copytree(tmp_path / "work", lab.folder, dirs_exist_ok=True)

    shown = run_all(notebook.relative_to(tmp_path / "work").as_posix())

    shown.locator(".vega-embed svg").first.wait_for()
    shown.get_by_text("inside the interval").or_(shown.get_by_text("outside the interval")).first.wait_for()
    shown.screenshot(path=screenshots / "tutorial.png")
