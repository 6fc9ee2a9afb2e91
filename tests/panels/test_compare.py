"""The compare panel: what was predicted beside what was measured, and what changed inside a step."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import perfnb
from perfnb.analyses import compare_parts
from perfnb.errors import NoStepsError
from perfnb.panels.compare import ComparePanel, Comparison
from perfnb.prediction import Unknown
from perfnb.run import Run
from perfnb.tables import conform

Shown = Callable[[Any], str]


def run_of(**phases_us: float) -> Run:
    """Twelve steps, each of these phases."""
    total, count = sum(phases_us.values()), range(12)
    steps = pd.DataFrame({"rank": 0, "step": count, "start_us": [total * n for n in count], "duration_us": total})
    rows = [(0, n, name, wall) for n in count for name, wall in phases_us.items()]
    phases = pd.DataFrame(rows, columns=["rank", "step", "phase", "wall_us"])
    signals = frozenset({"steps", "phases", "loader"})
    return Run(steps=conform("steps", steps), phases=conform("phases", phases), signals=signals)


BEFORE = run_of(data=60_000.0, forward=30_000.0, backward=10_000.0)
AFTER = run_of(data=10_000.0, forward=30_000.0, optimizer=5_000.0)


def test_parts_are_compared_by_their_ledgers() -> None:
    parts = compare_parts(BEFORE, AFTER)

    assert parts[["name", "change", "difference_us"]].to_numpy().tolist() == [
        ["Waiting for data", "faster", -50_000.0],
        ["Backward", "removed", -10_000.0],
        ["Optimizer", "added", 5_000.0],
        ["Forward", "unchanged", 0.0],
    ]


def test_few_steps_have_no_interval_and_clocks_are_not_mixed() -> None:
    short = Run(steps=BEFORE.steps.head(2), phases=BEFORE.phases.head(6), signals=BEFORE.signals)

    assert compare_parts(short, AFTER).set_index("name").loc["Waiting for data", "change"] == "unclear"
    with pytest.raises(NoStepsError):
        compare_parts(Run(), AFTER)


def test_without_configs_nothing_was_predicted_and_the_panel_says_so(shown: Shown) -> None:
    panel = perfnb.compare_panel(BEFORE, AFTER)

    assert isinstance(panel.outcome.prediction, Unknown)
    assert "[?] " in str(panel)
    assert "no prediction was made (the configs of the runs do not differ, or are not known)" in str(panel)
    assert "still there" in shown(panel)


def test_what_was_predicted_stands_beside_what_was_measured_on_a_recorded_pair(repository: Path, shown: Shown) -> None:
    folders = [repository / "data" / "samples" / "slow_loader", repository / "data" / "samples" / "slow_loader" / "after"]
    configs = [json.loads((folder / "config.json").read_text(encoding="utf-8")) for folder in folders]
    runs = [perfnb.read_trace(folder) for folder in folders]

    panel = perfnb.compare_panel(*runs, configs=(configs[0], configs[1]))

    assert panel.outcome.inside
    assert "[ok] predicted" in str(panel)
    assert "Waiting for data" in shown(panel)
    panel.choice.value = "operators"
    assert "enumerate(DataLoader)" in shown(panel)
    assert "more in the table" in shown(panel)
    panel.choice.value = "kernels"
    assert "Not compared: " in str(panel) or "nothing changed" in str(panel)


def test_a_finding_that_one_side_could_not_look_for_is_neither_new_nor_gone() -> None:
    before = perfnb.compare_panel(BEFORE, AFTER)
    blind = Run(steps=AFTER.steps, signals=frozenset({"steps"}), missing={"phases": "no phase was recorded"})

    panel = ComparePanel(
        outcome=before.outcome,
        before=perfnb.diagnose(BEFORE),
        after=perfnb.diagnose(blind),
        titles=("a", "b"),
        comparisons={"parts": Comparison(reason="no phases")},
    )

    assert "Not compared: no phases" in str(panel)
    assert "data_stall was not measured after" in str(panel)
    assert panel.chart is None


def test_several_runs_on_a_side_are_counted() -> None:
    assert "and 1 more run" in str(perfnb.compare_panel([BEFORE, BEFORE], AFTER))


def test_the_snapshot_is_complete_in_every_face() -> None:
    snapshot = perfnb.compare_panel(BEFORE, AFTER).snapshot()

    for face in (snapshot.html, snapshot.markdown, snapshot.plain):
        assert "Waiting for data" in face
        assert "measured" in face
    assert snapshot.html.count("<img") == 2


def test_no_hostile_name_acts(shown: Shown, tags: Callable[[str], Any]) -> None:
    def named(name: str) -> ComparePanel:
        sides = [Run(steps=each.steps, phases=each.phases, signals=each.signals, source=(name,)) for each in (BEFORE, AFTER)]
        return perfnb.compare_panel(*sides, configs=({name: "a"}, {name: name}))

    hostile, benign = named("<img src=x onerror=alert(1)></script>`|\x1b\u202e"), named("name")

    assert tags(shown(hostile)) == tags(shown(benign))
    assert tags(hostile.snapshot().html) == tags(benign.snapshot().html)
