"""The training panel: the losses, what is wrong with them, what to try, and a probe that asks the training itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import perfnb
from perfnb.errors import ProbeRefused
from perfnb.panels.training import TrainingPanel
from perfnb.run import Run
from perfnb.training.examples import curve_run, decay
from perfnb.training.probe_arms import BASE, arms_of
from perfnb.training.probe_result import Branch, ProbeResult, result_of

Shown = Callable[[Any], str]
DIVERGED = [2.0, 1.5, float("nan"), float("nan")]
CONFIG = {"learning_rate": 0.1, "planned_steps": 100}


def diverged(**changed: Any) -> TrainingPanel:
    return perfnb.training_panel(curve_run(DIVERGED, config=CONFIG), **changed)


def answer(factors: Sequence[float]) -> ProbeResult:
    arms = (BASE, *arms_of(factors, "learning_rate", 10)[1:])
    branches = [
        Branch(arm, np.linspace(2.0, 1.0, 10) - 0.1 * at, np.full(10, 0.1), np.full(10, 0.01)) for at, arm in enumerate(arms)
    ]
    return result_of(branches, knob="learning_rate", planned_steps=100, first_loss=2.0, batches=(), seconds=0.3, own_seconds=0.1)


def test_a_symptom_is_shown_with_its_counts_and_what_to_try(shown: Shown) -> None:
    panel = diverged()

    text = shown(panel)
    assert panel.finding is not None
    assert panel.finding.detector == "non_finite_loss"
    assert "lower_learning_rate: learning_rate 0.1 -&gt; 0.01" in text
    assert "confidence 0.63" in text
    assert panel.chart is not None
    assert panel.apply_button.description == "Apply learning_rate 0.1 -> 0.01 without a probe"


def test_apply_and_undo_change_a_config_that_is_never_touched(shown: Shown) -> None:
    config = dict(CONFIG)
    panel = perfnb.training_panel(curve_run(DIVERGED), config)

    panel.apply_button.click()
    assert panel.config == {**CONFIG, "learning_rate": 0.01}
    assert config == CONFIG
    assert panel.apply_button.disabled
    assert "Applied: learning_rate 0.1 -&gt; 0.01" in shown(panel)
    panel.undo_button.click()

    assert panel.config == CONFIG
    assert panel.undo_button.disabled


def test_a_file_is_written_on_the_second_click(tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    file.write_text("learning_rate: 0.1  # mine\n", encoding="utf-8")
    panel = perfnb.training_panel(curve_run(DIVERGED), file)

    panel.apply_button.click()
    assert panel.apply_button.description == "Write train.yaml"
    assert file.read_text(encoding="utf-8") == "learning_rate: 0.1  # mine\n"
    panel.apply_button.click()
    assert file.read_text(encoding="utf-8") == "learning_rate: 0.01  # mine\n"
    panel.undo_button.click()

    assert file.read_bytes() == b"learning_rate: 0.1  # mine\n"


def test_a_healthy_curve_says_what_was_looked_for() -> None:
    panel = perfnb.training_panel(curve_run(decay(400), config={**CONFIG, "schedule": "cosine"}))

    assert panel.finding is None
    assert "[ok] No symptom on this curve" in str(panel)
    assert "No sign of (" in str(panel)


def test_a_run_without_losses_says_what_is_missing() -> None:
    panel = perfnb.training_panel(Run())

    assert panel.chart is None
    assert "[?] Nothing can be said of the training: " in str(panel)
    assert "Not measured (" in str(panel)


def test_without_a_probe_the_panel_says_how_to_give_it_one() -> None:
    panel = diverged()

    assert panel.probe_button.disabled
    assert "probe=lambda factors: perfnb.probe(step, state, factors, 30, batches)" in str(panel)


def test_the_probe_button_asks_with_the_factors_of_the_advice(shown: Shown) -> None:
    asked: list[Sequence[float]] = []

    def probe(factors: Sequence[float]) -> ProbeResult:
        asked.append(tuple(factors))
        return answer(factors)

    panel = diverged(probe=probe)
    panel.probe_button.click()

    assert asked == [(0.01, 0.1)]
    assert panel.result is not None
    assert "Branches on the same batches" in shown(panel)
    assert panel.result.sentences[-1] in str(panel)
    assert not panel.probe_button.disabled


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ProbeRefused("the state is spread over ranks"), "[x] the state is spread over ranks"),
        (ValueError("bad"), "ValueError: bad"),
    ],
)
def test_a_probe_that_fails_says_why_on_screen(error: Exception, words: str) -> None:
    def probe(_: Sequence[float]) -> ProbeResult:
        raise error

    panel = diverged(probe=probe)
    panel.probe_button.click()

    assert panel.result is None
    assert words in str(panel)


def test_findings_are_stepped_through() -> None:
    losses = np.concatenate([decay(400), 0.5 + np.arange(200) * 0.01])
    losses[::40] *= 3.0
    panel = perfnb.training_panel(curve_run(losses, config={**CONFIG, "planned_steps": 1000}))
    assert len(panel.findings) > 1

    panel.next_button.click()
    assert panel.finding is panel.findings[1]
    panel.previous_button.click()
    assert panel.finding is panel.findings[0]


def test_the_snapshot_is_complete_in_every_face() -> None:
    snapshot = diverged().snapshot()

    for face in (snapshot.html, snapshot.markdown, snapshot.plain):
        assert "lower" in face
        assert "learning" in face
    assert "<img" in snapshot.html


def test_no_hostile_name_acts(shown: Shown, tags: Callable[[str], Any]) -> None:
    def named(name: str) -> TrainingPanel:
        run = curve_run(DIVERGED, config={"learning_rate": 0.1, name: name})
        return perfnb.training_panel(Run(training=run.training, config=run.config, source=(name,)), home=name)

    hostile, benign = named("<img src=x onerror=alert(1)></script>`|\x1b\u202e"), named("name")
    for panel in (hostile, benign):
        panel.apply_button.click()

    assert tags(shown(hostile)) == tags(shown(benign))
    assert tags(hostile.snapshot().html) == tags(benign.snapshot().html)
