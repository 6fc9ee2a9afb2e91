"""Detectors of memory beyond their examples: what they say where they cannot look, and what they show beside the bytes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from perfnb.catalogue import detectors
from perfnb.detector import Detector, DetectorExample, Unmeasured
from perfnb.diagnose import diagnose
from perfnb.findings import Cleared, Finding
from perfnb.memory_loss import measure_memory
from perfnb.run import Machine, Run
from perfnb.tables import table_from_text


def named(name: str) -> Detector:
    return next(each for each in detectors() if each.name == name)


def example_of(name: str, words: str) -> DetectorExample:
    return next(each for each in named(name).examples if words in each.title)


def allocator_run(text: str, **config: object) -> Run:
    table = table_from_text("allocator", text)
    return Run(allocator=table, signals=frozenset({"allocator"}), machine=Machine(device_memory_bytes=(1000,)), config=config)


@pytest.mark.parametrize("name", ["memory_pressure", "memory_fragmentation", "memory_rank_skew", "memory_leak", "memory_unused"])
def test_without_the_size_of_the_device_nothing_is_said(name: str) -> None:
    run = dataclasses.replace(named(name).examples[0].run, machine=Machine(), config={})

    with pytest.raises(Unmeasured, match="size of the device's memory is not known: record it with"):
        measure_memory(named(name), run)


@pytest.mark.parametrize(
    "name",
    ["memory_pressure", "memory_fragmentation", "memory_leak", "allocator_retries", "allocator_churn"],
)
def test_columns_without_a_value_are_not_measured(name: str) -> None:
    run = named(name).examples[0].run
    empty = table_from_text("allocator", "rank step device\n0 1 0\n1 1 0\n0 20 0\n1 20 0")

    with pytest.raises(Unmeasured, match="not recorded"):
        named(name).evidence(dataclasses.replace(run, allocator=empty))


def test_pressure_is_an_upper_bound_between_the_allocated_and_the_reserved_peak() -> None:
    found = measure_memory(named("memory_pressure"), named("memory_pressure").examples[0].run)

    assert isinstance(found, Finding)
    assert found.upper_bound
    assert (found.low, found.severity, found.high) == pytest.approx((0.03, 0.08, 0.08))  # 930 allocated, 980 reserved
    assert found.evidence["is_severe"].to_list() == [True, False]


def test_holes_are_not_counted_with_expandable_segments() -> None:
    run = named("memory_fragmentation").examples[0].run

    with pytest.raises(Unmeasured, match="expandable segments"):
        measure_memory(named("memory_fragmentation"), dataclasses.replace(run, config={"expandable_segments": "on"}))
    assert isinstance(
        measure_memory(named("memory_fragmentation"), dataclasses.replace(run, config={"expandable_segments": "off"})), Finding
    )


def test_where_memory_goes_at_the_fullest_moment_stands_beside_the_holes() -> None:
    run = allocator_run(
        "rank step device requested_bytes allocated_bytes active_bytes inactive_split_bytes reserved_bytes\n"
        "0 1 0 570 600 665 190 950"
    )

    shown = named("memory_fragmentation").evidence(run).iloc[0]

    parts = shown[["requested_share", "rounding_share", "holes_share", "cache_share"]].to_list()
    assert parts == pytest.approx([0.6, 0.1, 0.2, 0.1])
    assert sum(parts) == pytest.approx(1.0)


def test_skew_needs_the_memory_of_every_rank() -> None:
    two = named("memory_rank_skew").examples[1].run

    with pytest.raises(Unmeasured, match="has the memory of 2 of 8 ranks"):
        measure_memory(named("memory_rank_skew"), dataclasses.replace(two, world_size=8))
    with pytest.raises(Unmeasured, match="the job has one rank"):
        measure_memory(named("memory_rank_skew"), allocator_run("rank step device peak_reserved_bytes\n0 1 0 500"))


def test_unused_memory_is_an_opportunity_and_needs_to_know_what_a_larger_batch_would_bring() -> None:
    case = example_of("memory_unused", "on both ranks")

    found = measure_memory(named("memory_unused"), case.run)

    assert isinstance(found, Finding)
    assert found.unit == "opportunity"
    one_size = dataclasses.replace(case.run, training=case.run.training.assign(batch_size=8.0))
    with pytest.raises(
        Unmeasured, match="700 B are unused, but whether a larger batch would pay is not known: needs steps of two"
    ):
        measure_memory(named("memory_unused"), one_size)


def test_a_leak_says_its_horizon_and_when_the_device_is_full() -> None:
    found = measure_memory(named("memory_leak"), example_of("memory_leak", "planned steps").run)

    assert isinstance(found, Cleared)  # 1.8 of 80 GiB in the steps that are planned
    shown = named("memory_leak").evidence(example_of("memory_leak", "two ranks").run)
    leak = shown[shown["verdict"].eq("leak")].iloc[0]
    assert (leak["rank"], leak["horizon_steps"], leak["slope_bytes_per_step"]) == (1, 10_000, float(1 << 20))
    assert leak["steps_to_out_of_memory"] == pytest.approx(79 * 1024 - 209)  # 80 GiB less 1 GiB less 209 MiB


def test_the_host_of_a_trace_says_nothing_of_a_device() -> None:
    allocations = table_from_text("allocations", "rank device time_us bytes\n0 - 0 512\n0 - 10 512")
    run = Run(allocations=allocations, signals=frozenset({"allocations"}))

    with pytest.raises(Unmeasured, match="the state of torch's allocator was not recorded"):
        measure_memory(named("memory_leak"), run)


def test_a_short_run_is_not_measured_with_what_it_grew_by() -> None:
    run = named("host_memory_leak").examples[0].run
    short = dataclasses.replace(run, steps=run.steps[run.steps["step"] < 100])

    with pytest.raises(
        Unmeasured, match=r"memory in 97 steps of 97; a leak needs 200 steps .* rises by 1\.00 MiB per step so far"
    ):
        measure_memory(named("host_memory_leak"), short)


def test_a_full_group_of_which_nothing_else_is_known_is_not_measured() -> None:
    table = table_from_text("host_samples", "rank time_us memory_bytes memory_limit_bytes\n0 0 990 1000")
    run = Run(host_samples=table, signals=frozenset({"host_samples"}))

    with pytest.raises(Unmeasured, match="whether anything waits for it was not recorded"):
        measure_memory(named("host_memory_pressure"), run)


@pytest.mark.parametrize(
    ("name", "reason"), [("allocator_retries", "2 allocations had to"), ("allocator_churn", "100 % of steps ask")]
)
def test_time_of_the_allocator_needs_a_trace_and_says_so(name: str, reason: str) -> None:
    run = named(name).examples[0].run
    untraced = dataclasses.replace(run, signals=run.signals - {"host_ops", "device_ops"})

    with pytest.raises(Unmeasured, match=rf"{reason}.*record\(trace=5\)"):
        named(name).evidence(untraced)


def test_retries_outside_the_trace_are_said() -> None:
    run = named("allocator_retries").examples[0].run
    elsewhere = run.host_ops[~run.host_ops["name"].isin(["cudaFree"])]

    with pytest.raises(Unmeasured, match="none of them in the traced steps"):
        named("allocator_retries").evidence(dataclasses.replace(run, host_ops=elsewhere))


def test_calls_of_a_rank_with_retries_are_no_churn() -> None:
    run = named("allocator_churn").examples[0].run
    retried = run.allocator.assign(retries=run.allocator["retries"].where(run.allocator["step"] < 25, 1))

    assert named("allocator_churn").evidence(dataclasses.replace(run, allocator=retried)).empty


@pytest.mark.parametrize("name", ["allocator_retries", "allocator_churn"])
def test_the_allocator_claims_its_time_before_launches_do(name: str) -> None:
    made = diagnose(named(name).examples[0].run)

    assert name in [found.detector for found in made.possible]


@pytest.mark.corpus
def test_memory_of_recorded_traces_is_judged_without_a_failure(corpus: Path) -> None:
    import perfnb  # noqa: PLC0415 - as users do

    names = {each.name for each in detectors() if each.family == "memory"}
    for folder in ("hta/df_index_resolver", "tracelens/h100_qwen1.5_0.5b"):
        made = diagnose(perfnb.read_trace(corpus / "traces" / folder))

        reasons = {each.detector: each.reason for each in made.unmeasured if each.detector in names}
        assert not [reason for reason in reasons.values() if reason.startswith("failed")]
        assert "memory_pressure" not in reasons
        assert not [each for each in made.found if each.detector in names and each.unit == "memory"]
