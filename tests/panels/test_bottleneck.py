"""The bottleneck panel: steps through findings, each with its evidence and the changes that answer it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import perfnb
from perfnb.apply import apply, undo
from perfnb.charts import breakdown_chart
from perfnb.charts.theme import AnyChart
from perfnb.facts import breakdown
from perfnb.findings import Cleared, Diagnosis, Finding, NotMeasured
from perfnb.fix import NotApplicable, Suggestion
from perfnb.panels.bottleneck import BottleneckPanel
from perfnb.prediction import Change, Prediction, Unknown

Shown = Callable[[Any], str]
HOSTILE = "<img src=x onerror=alert(1)></script>`|\x1b\u202e"
PARTS = pd.DataFrame(
    {"clock": "host", "part": ["data.wall", "forward.wall"], "time_us": [60_000.0, 40_000.0], "share": [0.6, 0.4]}
)


def finding(name: str, severity: float, ranks: tuple[int, ...] = (0,)) -> Finding:
    rows = pd.DataFrame(
        {"rank": list(ranks), "step": 7, "name": [f"{name} of rank {rank}" for rank in ranks], "lost_us": 1_000.0}
    )
    words = f"{name} takes {severity:.0%}"
    return Finding(
        name, "data", severity, severity - 0.01, severity + 0.01, 1_000.0, 0.5, "no record yet", 1, ranks, (7, 8, 9), rows, words
    )


def diagnosis(*found: Finding, name: str = "host_sync") -> Diagnosis:
    cleared = (Cleared(name, "device idle", 0.01, 0.05, f"{name} is small"),)
    unmeasured = (NotMeasured(name, "imbalance", f"{name} has one rank"),)
    return Diagnosis(found, (), cleared, unmeasured, 100_000.0, 99_000.0, 101_000.0, "50 of 60 steps", PARTS, name, (name,))


WORKERS = Suggestion(
    "raise_num_workers",
    (Change("num_workers", 0, 4),),
    ("data_stall",),
    "workers load while training runs",
    Prediction("step_us", 100_000, 55_000, 49_500, 60_500, "prior"),
    0.9,
)
CACHE = Suggestion(
    "cache_samples", (Change("cache_samples", "none", "memory"),), ("data_stall",), "kept", Unknown("not probed", "a probe")
)


@pytest.fixture
def opened() -> Callable[..., BottleneckPanel]:
    def panel(answer: Diagnosis, suggestions: tuple[Suggestion, ...] = (), **changed: Any) -> BottleneckPanel:
        values: dict[str, Any] = {
            "config": {"num_workers": 0, "cache_samples": "none"},
            "chart": lambda *_: breakdown_chart(breakdown(answer.parts)),
            "how": {"data_stall": ("time inside the loader",)},
            "on_apply": apply,
            "on_undo": undo,
        }
        return BottleneckPanel(answer, suggestions, **values | changed)

    return panel


Open = Callable[..., BottleneckPanel]
TWO = (finding("data_stall", 0.58), finding("launch_overhead", 0.2))


def test_next_shows_the_next_finding_and_previous_the_one_before(opened: Open, shown: Shown) -> None:
    panel = opened(diagnosis(*TWO))
    assert "data_stall takes 58%" in shown(panel)
    assert panel.previous_button.disabled

    panel.next_button.click()

    assert "launch_overhead takes 20%" in shown(panel)
    assert "data_stall takes 58%" not in shown(panel)
    assert panel.next_button.disabled
    panel.previous_button.click()
    assert "data_stall takes 58%" in shown(panel)


def test_the_list_and_the_buttons_stay_together(opened: Open) -> None:
    panel = opened(diagnosis(*TWO))

    panel.choice.value = 1

    assert panel.finding is TWO[1]
    assert not panel.previous_button.disabled
    assert [words for words, _ in panel.choice.options] == ["1: data_stall, 58 %", "2: launch_overhead, 20 %"]


def test_a_chart_is_drawn_once_until_another_finding_is_chosen(opened: Open) -> None:
    drawn: list[str] = []

    def chart(chosen: Finding, _: int | None) -> AnyChart:
        drawn.append(chosen.detector)
        return breakdown_chart(breakdown(PARTS))

    panel = opened(diagnosis(*TWO), (WORKERS,), chart=chart)

    panel.slots[0].button.click()
    assert drawn == ["data_stall"]
    panel.next_button.click()
    assert drawn == ["data_stall", "launch_overhead"]


def test_children_stay_while_their_traits_change(opened: Open) -> None:
    panel = opened(diagnosis(*TWO), (WORKERS,))
    children = panel.root.children

    panel.next_button.click()

    assert panel.root.children == children
    assert panel.slots[0].widget.layout.display == "none"


def test_a_suggestion_stands_with_its_predicted_range(opened: Open, shown: Shown) -> None:
    panel = opened(diagnosis(*TWO), (WORKERS, CACHE))

    assert "100 -&gt; 55 ms per step (49.5-60.5 ms, 80 %), 1.82x, basis: prior" in shown(panel)
    assert "Unknown: not probed. Needs: a probe" in shown(panel)
    assert [slot.button.description for slot in panel.slots] == ["Apply raise_num_workers", "Apply without a prediction"]


def test_apply_makes_a_new_config_shows_the_diff_and_is_done_once(opened: Open, shown: Shown) -> None:
    panel = opened(diagnosis(*TWO), (WORKERS,))
    before = panel.config

    panel.slots[0].button.click()
    panel.slots[0].button.click()

    assert panel.config["num_workers"] == 4
    assert before["num_workers"] == 0
    assert "Applied raise_num_workers: num_workers 0 -&gt; 4" in shown(panel)
    assert (panel.slots[0].button.description, panel.slots[0].button.disabled) == ("Applied", True)


def test_undo_takes_the_latest_change_back(opened: Open) -> None:
    panel = opened(diagnosis(*TWO), (WORKERS, CACHE))
    panel.slots[0].button.click()
    panel.slots[1].button.click()

    assert panel.undo_button.description == "Undo cache_samples"
    panel.undo_button.click()
    assert panel.config == {"num_workers": 4, "cache_samples": "none"}
    panel.undo_button.click()
    assert panel.config == {"num_workers": 0, "cache_samples": "none"}
    assert panel.undo_button.disabled


def test_a_change_that_no_longer_fits_is_refused(opened: Open, shown: Shown) -> None:
    panel = opened(diagnosis(*TWO), (WORKERS,), config={"num_workers": 2})

    panel.slots[0].button.click()

    assert panel.config == {"num_workers": 2}
    assert "num_workers is 2, but the change starts from 0" in shown(panel)


def test_fixes_that_do_not_apply_are_listed_with_the_reason(opened: Open, shown: Shown) -> None:
    panel = opened(diagnosis(*TWO), refused=[(NotApplicable("pin_memory", "there is no device"), ("data_stall",))])

    assert "Does not apply here (1)" in shown(panel)
    panel.next_button.click()
    assert "there is no device" not in shown(panel)
    assert "no change of a knob is known to answer this" in shown(panel)


def test_what_is_not_limiting_and_not_measured_is_always_listed(opened: Open, shown: Shown) -> None:
    text = shown(opened(diagnosis(*TWO)))

    assert "Not limiting (1)" in text
    assert "Not measured (1)" in text


def test_without_a_finding_the_verdict_stands_first_and_the_controls_are_off(opened: Open, shown: Shown) -> None:
    panel = opened(diagnosis())

    assert "[ok]" in shown(panel)
    assert panel.next_button.disabled
    assert panel.previous_button.disabled
    assert "<details open" in shown(panel)
    assert panel.snapshot().plain.startswith("perfnb  [ok] Nothing above its limit")


def test_a_rank_narrows_the_evidence(opened: Open, shown: Shown) -> None:
    panel = opened(diagnosis(finding("data_stall", 0.5, (0, 3))))

    panel.rank_choice.value = "3"

    assert "data_stall of rank 3" in shown(panel)
    assert "data_stall of rank 0" not in shown(panel)
    assert panel.rank == 3


def test_one_rank_needs_no_choice(opened: Open) -> None:
    assert opened(diagnosis(*TWO)).rank_choice.layout.display == "none"


def test_what_is_only_possible_is_marked_so(opened: Open, shown: Shown) -> None:
    panel = opened(dataclasses.replace(diagnosis(), possible=TWO))

    assert "[?]" in shown(panel)
    assert "[!]" not in shown(panel)


def test_the_snapshot_is_complete_in_every_face(opened: Open) -> None:
    panel = opened(diagnosis(*TWO), (WORKERS,))

    snapshot = panel.snapshot()

    for face in (snapshot.html, snapshot.markdown, snapshot.plain):
        assert all(
            words in face for words in ("data_stall takes 58%", "raise_num_workers", "55 ms per step", "Not measured", "Evidence")
        )
    assert str(panel) == repr(panel) == snapshot.plain
    assert "application/vnd.jupyter.widget-view+json" not in panel._repr_mimebundle_()


def test_no_hostile_name_acts_in_any_view(opened: Open, shown: Shown, tags: Callable[[str], Any]) -> None:
    def named(name: str) -> BottleneckPanel:
        suggested = Suggestion(name, (Change("num_workers", 0, name),), (name,), name, Unknown(name, name), None, name)
        answer = diagnosis(finding(name, 0.5), finding(name, 0.4), name=name)
        panel = opened(answer, (suggested,), how={name: (name,)}, refused=[(NotApplicable(name, name), (name,))], home=name)
        panel.slots[0].button.click()
        return panel

    hostile, benign = named(HOSTILE), named("name")

    assert tags(shown(hostile)) == tags(shown(benign))
    assert tags(hostile.snapshot().html) == tags(benign.snapshot().html)


@pytest.mark.parametrize("sample", ["slow_loader", "slow_rank", "python_logging", "cpu_transform", "healthy"])
def test_the_public_panel_opens_on_every_recorded_run(sample: str, repository: Path) -> None:
    folder = repository / "data" / "samples" / sample
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))

    panel = perfnb.bottleneck_panel(perfnb.read_trace(folder), config)

    assert (panel.finding is None) == (sample == "healthy")
    assert panel.config == config


def test_the_chart_is_the_timeline_of_the_step_in_which_most_is_lost(repository: Path) -> None:
    run = perfnb.read_trace(repository / "data" / "samples" / "slow_loader")
    panel = perfnb.bottleneck_panel(run, {"num_workers": 0})
    worst = perfnb.diagnose(run)["data_stall"].evidence.iloc[0]

    assert f"Step {worst['step']} of rank 0, where this costs most" in json.dumps(panel.chart.spec)


@pytest.mark.corpus
def test_a_device_run_has_a_chart_for_each_finding_and_each_rank_a_choice(corpus: Path) -> None:
    pair = perfnb.bottleneck_panel(
        perfnb.read_trace(corpus / "traces/kineto/resnet50_pair_A/before_num_workers_0"), {"num_workers": 0}
    )
    ranks = perfnb.bottleneck_panel(perfnb.read_trace(corpus / "traces/param/dlrm_8rank"), {"num_workers": 0})

    for number in range(len(pair.findings)):
        pair.choice.value = number
        assert "Device: computing" in json.dumps(pair.chart.spec)
    assert len(pair.findings) > 1
    assert ranks.rank_choice.layout.display is None
    for _, rank in ranks.rank_choice.options:
        ranks.rank_choice.value = rank
        assert ranks.snapshot().html
