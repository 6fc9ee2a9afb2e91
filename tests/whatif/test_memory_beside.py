"""Memory beside a prediction of time: a replay, a dry run, or bounds from what was recorded; and when no speed may be shown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import perfnb
from perfnb.prediction import Change, MemoryPart, Prediction, Unknown
from perfnb.run import Machine, Run
from perfnb.tables import table_from_text
from perfnb.whatif.memory_beside import memory_beside, memory_part, memory_problem, out_of_memory_reason, predict_peak

MIB = 1 << 20
ENDS = """rank step device allocated_bytes peak_allocated_bytes peak_reserved_bytes
          0    5    0      300             1000                 1200
          0    6    0      300             1000                 1200"""
REQUESTS = f"""rank device sequence action         address bytes      requested_bytes stream pool  allocated_bytes reserved_bytes
               0    0      0        segment_alloc  4096    {20 * MIB} -               0      large 0               {20 * MIB}
               0    0      1        alloc          4096    {3 * MIB}  {3 * MIB}       0      large {3 * MIB}       {20 * MIB}
               0    0      2        free_requested 4096    -{3 * MIB} -               0      large 0               {20 * MIB}
               0    0      3        free_completed 4096    0          -               0      large 0               {20 * MIB}"""


def recorded(capacity: int = 1500) -> Run:
    return Run(allocator=table_from_text("allocator", ENDS), machine=Machine(device_memory_bytes=(capacity,)))


def part(found: MemoryPart | Unknown) -> MemoryPart:
    assert isinstance(found, MemoryPart), found
    return found


def test_a_larger_batch_is_bounded_by_what_stays_and_what_comes_and_goes() -> None:
    found = part(memory_beside(recorded(), {"batch_size": 16}, {"batch_size": 8}))

    # 300 stay, 700 become 1400 at most
    assert (found.before_bytes, found.after_bytes, found.low_bytes, found.high_bytes) == (1000, 1700, 1000, 1700)
    assert (found.usable_bytes, found.level, found.verdict) == (1500, "D", "may run out of memory")
    assert found.is_at_risk


def test_a_longer_sequence_may_take_the_square() -> None:
    found = part(memory_beside(recorded(4000), {"sequence_length": 16}, {"sequence_length": 8}))

    assert (found.after_bytes, found.high_bytes) == (1700, 300 + 4 * 700)
    assert found.verdict == "may fit"


def test_a_smaller_batch_takes_no_more_than_now() -> None:
    found = part(memory_beside(recorded(), [Change("batch_size", 8, 4)], {}))

    assert (found.low_bytes, found.high_bytes, found.is_at_risk) == (650, 1000, False)


def test_what_is_kept_between_the_steps_alone_may_be_too_much() -> None:
    found = part(memory_beside(recorded(), {"batch_size": 16}, {"batch_size": 8}, usable_bytes=900))

    assert found.verdict == "does not fit"
    assert out_of_memory_reason(found).reason.startswith("does not fit: ")


def test_without_the_size_of_the_device_nothing_is_said_of_fitting() -> None:
    run = Run(allocator=table_from_text("allocator", ENDS))

    found = part(memory_beside(run, {"batch_size": 16}, {"batch_size": 8}))

    assert (found.verdict, found.is_at_risk) == ("usable memory not known", False)


@pytest.mark.parametrize(
    ("changes", "config", "reason"),
    [
        ({"num_workers": 4}, {"num_workers": 0}, "no change concerns"),
        ({"precision": "bf16"}, {"precision": "fp32"}, "takes a dry run"),
        ({"batch_size": 16, "expandable_segments": True}, {"batch_size": 8, "expandable_segments": False}, "takes a dry run"),
        ({"batch_size": "auto"}, {"batch_size": 8}, "1 or more"),
        ({"batch_size": 16}, {}, "the config has no batch_size"),
        ({"expandable_segments": True}, {"expandable_segments": False}, "no single allocations"),
    ],
)
def test_what_cannot_be_told_says_why(changes: dict[str, Any], config: dict[str, Any], reason: str) -> None:
    found = memory_beside(recorded(), changes, config)

    assert isinstance(found, Unknown)
    assert reason in found.reason


def test_a_run_without_the_allocator_says_what_would_tell() -> None:
    found = memory_beside(Run(), {"batch_size": 16}, {"batch_size": 8})

    assert isinstance(found, Unknown)
    assert "perfnb.record" in found.needs


def test_settings_of_the_allocator_are_replayed() -> None:
    run = Run(allocations=table_from_text("allocations", REQUESTS), config={"expandable_segments": False})

    found = part(memory_beside(run, {"expandable_segments": True}, usable_bytes=100 * MIB))

    # 3 MiB take a segment of 20 MiB either way: a granule of expandable large segments is 20 MiB
    assert (found.what, found.before_bytes, found.after_bytes) == ("reserved", 20 * MIB, 20 * MIB)
    assert (found.level, found.verdict) == ("B", "fits")
    assert any("expandable_segments" in one for one in found.assumptions)


def test_where_the_reserved_peak_passes_the_limit_what_is_required_decides() -> None:
    run = Run(allocations=table_from_text("allocations", REQUESTS), config={"expandable_segments": False})

    found = part(memory_beside(run, {"expandable_segments": True}, usable_bytes=19 * MIB))

    assert found.verdict == "does not fit"
    assert any("are required" in one for one in found.assumptions)


def test_no_speed_is_shown_where_memory_may_not_suffice() -> None:
    larger, smaller = {"batch_size": 16}, {"batch_size": 4}

    problem = memory_problem(recorded(), larger, {"batch_size": 8})

    assert problem is not None
    assert "may run out of memory" in problem.reason
    assert memory_problem(recorded(), smaller, {"batch_size": 8}) is None
    assert memory_part(recorded(), {"num_workers": 2}, {"num_workers": 0}) is None


def test_the_peak_is_a_prediction_of_its_own() -> None:
    found = predict_peak(recorded(), {"batch_size": 16}, {"batch_size": 8})

    assert isinstance(found, Prediction)
    assert (found.metric, found.before, found.after, found.low, found.high) == ("memory_bytes", 1000, 1700, 1000, 1700)
    assert "may run out of memory" in found.assumptions
    assert isinstance(predict_peak(Run(), {"batch_size": 16}, {"batch_size": 8}), Unknown)


def test_a_prediction_can_hold_its_memory() -> None:
    memory = part(memory_beside(recorded(), {"batch_size": 16}, {"batch_size": 8}))

    assert Prediction("step_us", 100.0, 90.0, 85.0, 95.0, "prior", memory=memory).memory is memory


def test_predict_shows_memory_beside_the_step_or_no_speed_at_all() -> None:
    steps = "rank step start_us duration_us\n" + "\n".join(f"0 {step} {step * 1000} 1000" for step in range(20))
    phases = "rank step phase wall_us\n" + "\n".join(f"0 {step} forward 900" for step in range(20))
    run = replace(recorded(), steps=table_from_text("steps", steps), phases=table_from_text("phases", phases))
    config = {"batch_size": 8, "num_workers": 0}

    larger = perfnb.predict(run, {"batch_size": 16}, config)
    peak = perfnb.predict(run, {"batch_size": 16}, config, metric="memory_bytes")
    smaller = perfnb.predict(run, {"batch_size": 4}, config)

    assert isinstance(larger, Unknown)
    assert "may run out of memory" in larger.reason
    assert isinstance(peak, Prediction)
    assert peak.after == 1700
    assert not isinstance(smaller, Prediction) or smaller.memory is not None
