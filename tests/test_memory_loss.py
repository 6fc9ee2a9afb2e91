"""Findings of memory: share of its size, apart from step time; hints of the config; the order of detectors."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import pandas as pd
import pytest

from perfnb.catalogue import detectors, in_order
from perfnb.detector import ConfigHint, Detector, Unmeasured, detector, example
from perfnb.diagnose import diagnose
from perfnb.findings import Cleared, Finding
from perfnb.memory_loss import measure_memory
from perfnb.report import card
from perfnb.track_record import HIGHEST_CONFIDENCE, confidence

STEPS = "rank step start_us duration_us\n" + "\n".join(f"0 {step} {step * 100} 100" for step in range(12))
PHASES = "rank step phase wall_us\n" + "\n".join(f"0 {step} {part}" for step in range(12) for part in ("data 60", "forward 40"))
RUN = example("slow data", lost_share=0.6, signals=("loader", "collectives"), world_size=1, steps=STEPS, phases=PHASES).run


def _of_memory(rows: list[dict[str, Any]], **named: Any) -> Detector:
    """A detector that finds the given rows."""

    def pressure(config: object) -> pd.DataFrame:
        return pd.DataFrame(
            rows, columns=["rank", "device", "bytes", "capacity_bytes", *({"step"} & {key for row in rows for key in row})]
        )

    decorate = detector(
        family="memory", title="Pressure", source="none", injected_by="none", examples=(), not_to_confuse_with=(), unit="memory",
        **named,
    )  # fmt: skip
    return decorate(pressure)


def test_the_memory_that_is_worst_off_gives_the_severity() -> None:
    rows = [
        {"rank": 0, "device": 0, "bytes": 10, "capacity_bytes": 100},
        {"rank": 1, "device": 1, "bytes": 30, "capacity_bytes": 100},
    ]

    found = measure_memory(_of_memory(rows), RUN)

    assert isinstance(found, Finding)
    assert (found.severity, found.low, found.high) == (0.3, 0.3, 0.3)
    assert (found.unit, found.lost_bytes, found.ranks) == ("memory", 30.0, (0, 1))
    assert found.lost_us != found.lost_us


def test_steps_of_the_evidence_are_named_once_each() -> None:
    rows = [{"rank": 0, "device": 0, "bytes": 50 - step, "capacity_bytes": 100, "step": step} for step in (7, 3, 7)]

    found = measure_memory(_of_memory(rows), RUN)

    assert isinstance(found, Finding)
    assert found.steps == (3, 7)


def test_memory_under_the_threshold_is_cleared_with_its_number() -> None:
    cleared = measure_memory(_of_memory([{"rank": 0, "device": 0, "bytes": 4, "capacity_bytes": 100}]), RUN)

    assert isinstance(cleared, Cleared)
    assert cleared.severity == 0.04


def test_memory_of_unknown_size_is_not_measured() -> None:
    with pytest.raises(Unmeasured, match="size of the memory is not known"):
        measure_memory(_of_memory([{"rank": 0, "device": 0, "bytes": 4, "capacity_bytes": None}]), RUN)


def test_time_and_memory_are_ranked_apart_and_both_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    full = _of_memory([{"rank": 0, "device": 0, "bytes": 99, "capacity_bytes": 100}])
    monkeypatch.setattr(sys.modules["perfnb.diagnose"], "detectors", lambda: (full, *detectors()))

    made = diagnose(RUN)

    assert [(item.detector, item.unit) for item in made.found] == [("data_stall", "time"), ("pressure", "memory")]
    assert "of memory" in str(card(made))


def test_memory_is_judged_where_no_step_was_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    full = _of_memory([{"rank": 0, "device": 0, "bytes": 99, "capacity_bytes": 100}])
    monkeypatch.setattr(sys.modules["perfnb.diagnose"], "detectors", lambda: (full, *detectors()))

    made = diagnose(dataclasses.replace(RUN, steps=RUN.steps.iloc[:0]))

    assert [item.detector for item in made.found] == ["pressure"]
    assert len(made.unmeasured) == len(detectors())


def test_what_only_the_config_tells_is_a_hint_and_no_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def wide(config: object) -> pd.DataFrame:
        raise ConfigHint("fp32 on a device that has TF32")  # noqa: EM101 - what it says

    hinting = dataclasses.replace(_of_memory([]), name="wide", function=wide)
    monkeypatch.setattr(sys.modules["perfnb.diagnose"], "detectors", lambda: (hinting,))

    made = diagnose(RUN)

    assert [(item.detector, item.sentence) for item in made.hints] == [("wide", "fp32 on a device that has TF32")]
    assert made.findings.empty
    assert "fp32 on a device that has TF32" in str(card(made))


def test_a_detector_that_fails_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(config: object) -> pd.DataFrame:
        raise KeyError(config)

    failing = dataclasses.replace(_of_memory([]), function=broken)
    monkeypatch.setattr(sys.modules["perfnb.diagnose"], "detectors", lambda: (failing,))

    made = diagnose(RUN)

    assert "in broken" in made.unmeasured[0].traceback


def test_causes_claim_before_what_names_them_and_bases_last() -> None:
    base = dataclasses.replace(_of_memory([]), name="a_base", is_base=True)
    late = dataclasses.replace(_of_memory([]), name="b", after=("c",))
    cause = dataclasses.replace(_of_memory([]), name="c")

    assert [each.name for each in in_order([base, late, cause])] == ["c", "b", "a_base"]


def test_detectors_that_wait_for_one_another_are_refused() -> None:
    first = dataclasses.replace(_of_memory([]), name="a", after=("b",))
    second = dataclasses.replace(_of_memory([]), name="b", after=("a",))

    with pytest.raises(ValueError, match="wait for one another: a, b"):
        in_order([first, second])


def test_confidence_without_a_record_is_half_of_the_probability_and_never_above_its_tier() -> None:
    assert confidence(1.0, "no such detector", 1) == 0.5
    assert confidence(0.4, "no such detector", 3) == 0.2
    assert confidence(1.0, "no such detector", 9) <= HIGHEST_CONFIDENCE[3]
