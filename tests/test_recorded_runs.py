"""Real recorded runs with a measured truth: what every detector must say of them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

import perfnb
from perfnb.catalogue import detectors

EXPECTED = list(
    csv.DictReader((Path(__file__).parent.parent / "data/samples/expected.csv").read_text(encoding="utf-8").splitlines())
)
FAMILIES = {each.name: each.family for each in detectors()}


@pytest.mark.parametrize("row", EXPECTED, ids=[row["run"] for row in EXPECTED])
def test_the_injected_cause_comes_first_with_its_measured_share(repository: Path, row: dict[str, str]) -> None:
    first = perfnb.diagnose(perfnb.read_trace(repository / "data/samples" / row["run"])).found[0]

    assert first.detector == row["detector"]
    assert first.category == FAMILIES[row["detector"]]
    assert first.severity == pytest.approx(float(row["severity"]), abs=float(row["tolerance"]))


@pytest.mark.parametrize("row", EXPECTED, ids=[row["run"] for row in EXPECTED])
def test_the_run_after_the_fix_has_no_such_finding(repository: Path, row: dict[str, str]) -> None:
    diagnosis = perfnb.diagnose(perfnb.read_trace(repository / "data/samples" / row["run"] / "after"))

    assert row["detector"] not in diagnosis.findings["detector"].to_list()


def test_the_healthy_run_has_no_finding(repository: Path) -> None:
    diagnosis = perfnb.diagnose(perfnb.read_trace(repository / "data/samples/healthy"))

    assert diagnosis.findings.empty
    assert diagnosis.possible == ()
    assert not diagnosis.not_limiting.empty


@pytest.mark.parametrize("row", EXPECTED, ids=[row["run"] for row in EXPECTED])
def test_the_fix_is_predicted_within_ten_percent(repository: Path, row: dict[str, str]) -> None:
    folder = repository / "data/samples" / row["run"]
    before, after = (json.loads((path / "config.json").read_text(encoding="utf-8")) for path in (folder, folder / "after"))
    changed = {
        knob: after[knob]
        for knob in before
        if knob in ("num_workers", "cache_samples", "log_every_n_steps", "balance_batches") and before[knob] != after[knob]
    }
    run = perfnb.read_trace(folder)

    prediction = perfnb.predict(run, changed, before)
    assert isinstance(prediction, perfnb.Prediction)
    outcome = perfnb.verify(prediction, run, perfnb.read_trace(folder / "after"))

    assert outcome.error_share == pytest.approx(0.0, abs=0.10)
    assert outcome.void == ""


def test_a_suggestion_for_each_recorded_cause_changes_the_knob_that_was_changed(repository: Path) -> None:
    for row in EXPECTED:
        folder = repository / "data/samples" / row["run"]
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))

        suggestions = perfnb.suggest(perfnb.read_trace(folder), config)

        assert suggestions
        assert all(row["detector"] in suggestion.answers for suggestion in suggestions)
        assert perfnb.apply(suggestions[0], config) != config


def test_every_detector_has_a_recorded_run_or_says_why_not() -> None:
    recorded = {row["detector"] for row in EXPECTED}
    for each in detectors():
        assert each.name in recorded or each.recorded_only_when, each.name
