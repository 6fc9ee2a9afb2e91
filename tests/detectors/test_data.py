"""The data family together: which cause takes which part of the stall, and what its heading keeps."""

from __future__ import annotations

from pathlib import Path

import pytest

import perfnb
from perfnb.run import Machine, Run
from perfnb.tables import table_from_text

CAUSES = ("oversubscribed_workers", "outlier_samples", "cold_cache", "slow_sample_read", "slow_transform")
SAMPLES = "rank time_us workers read_bytes_per_s\n0 0 0 -\n" + "\n".join(f"0 {second}000000 0 0" for second in range(1, 5))


def run_of(cpu_ms: int, blocked_ms: int, late_ms: int, *, samples: str = SAMPLES, workers: int = 0) -> Run:
    """Forty steps of 100 ms after a first; loading runs and is blocked as given, in every eighth step blocked for late_ms."""
    steps, phases = ["rank step start_us duration_us epoch"], ["rank step phase wall_us cpu_us runqueue_us blocked_us"]
    for step in range(41):
        blocked = late_ms if step % 8 == 1 else blocked_ms
        rest = 100 - cpu_ms - blocked
        steps.append(f"0 {step} {step}00000 100000 0")
        phases.append(f"0 {step} data {cpu_ms + blocked}000 {cpu_ms}000 0 {blocked}000")
        phases.append(f"0 {step} forward {rest}000 {rest}000 0 0")
    return Run(
        steps=table_from_text("steps", "\n".join(steps)),
        phases=table_from_text("phases", "\n".join(phases)),
        host_samples=table_from_text("host_samples", samples),
        config={"num_workers": workers},
        machine=Machine(cpu_capacity=2),
        signals=frozenset({"steps", "phases", "host_samples", "loader"}),
    )


def shares(run: Run) -> dict[str, float]:
    found = perfnb.diagnose(run).found
    return {finding.detector: finding.severity for finding in found if finding.category == "data"}


def test_slow_samples_among_slow_transforms_are_two_findings_that_sum_to_the_stall() -> None:
    assert shares(run_of(20, 1, 65)) == pytest.approx({"slow_transform": 0.21, "outlier_samples": 0.08})


def test_slow_samples_do_not_make_a_transform_a_read() -> None:
    assert "slow_sample_read" not in shares(run_of(6, 0, 79))


def test_reads_and_transforms_of_like_size_leave_it_at_the_heading() -> None:
    assert shares(run_of(20, 20, 20)) == pytest.approx({"data_stall": 0.40})


def test_what_takes_most_of_a_sample_takes_the_whole_wait() -> None:
    assert shares(run_of(10, 30, 30)) == pytest.approx({"slow_sample_read": 0.40})
    assert shares(run_of(30, 10, 10)) == pytest.approx({"slow_transform": 0.40})


def test_without_samples_of_workers_the_heading_keeps_the_whole_stall_and_the_causes_say_why() -> None:
    diagnosis = perfnb.diagnose(run_of(5, 30, 30, workers=2))

    reasons = diagnosis.not_measured.set_index("detector")["reason"]
    assert diagnosis["data_stall"].severity == pytest.approx(0.35)
    assert all(
        "no sample tells what the loader's workers did" in reasons[name] for name in ("slow_sample_read", "slow_transform")
    )


def test_a_trace_tells_that_data_is_late_not_why(repository: Path) -> None:
    diagnosis = perfnb.diagnose(perfnb.read_trace(repository / "data/samples/slow_loader"))

    assert diagnosis.found[0].detector == "data_stall"
    assert set(CAUSES) <= set(diagnosis.not_measured["detector"])


def test_a_healthy_run_has_no_finding_of_the_family() -> None:
    assert shares(run_of(2, 1, 1)) == {}
