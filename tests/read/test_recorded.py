"""What was recorded becomes a Run: sums kept, nothing negative, ranks on one clock, gaps said."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from perfnb.ledger import step_ledger
from perfnb.read.recorded import run_of
from perfnb.read.recorded_clock import settled, split
from perfnb.record.rows import COLUMNS
from perfnb.record.sink import MemorySink
from perfnb.run import Machine, Recording, Run

_MS = 1_000_000
_START = 5_000_000_000_000_123  # as float64 its microseconds would be off


def recorded(rank: int = 0, state: str = "finished", header: dict[str, Any] | None = None, **rows: list[Any]) -> MemorySink:
    sink = MemorySink(
        {
            "schema_version": 1,
            "columns": {table: list(names) for table, names in COLUMNS.items()},
            "rank": rank,
            "world_size": 1,
            "host": "node-a",
            "process": 17,
            "boot": "boot-a",
            "monotonic_ns": _START - _MS,
            "wall_ns": 1_700_000_000_000_000_000,
            "config": {},
            "machine": {"devices": [], "device_memory_bytes": [], "cpu_capacity": 2.0},
        }
        | (header or {})
    )
    for table, some in rows.items():
        sink.append(table, some)
    if state != "running":
        sink.close(state, "ValueError: no" if state == "failed" else "")
    sink.state = state
    return sink


def steps(count: int, start_ns: int = _START, length_ns: int = 10 * _MS) -> list[Any]:
    return [(number, start_ns + number * length_ns, start_ns + (number + 1) * length_ns, False, 0, 1) for number in range(count)]


def phases(run: Run) -> list[tuple[Any, ...]]:
    rows = run.phases[["step", "phase", "wall_us", "cpu_us", "runqueue_us", "blocked_us"]]
    return [tuple(row) for row in rows.itertuples(index=False)]


def test_steps_and_phases_are_microseconds_since_the_first_event() -> None:
    rows = [
        (0, "data", 4 * _MS, 1 * _MS, 2 * _MS, None),
        (0, "forward", 6 * _MS, 6 * _MS, 0, 5.5),
        (1, "data", 10 * _MS, 0, 0, None),
    ]

    run = run_of([recorded(steps=steps(2), phases=rows)])

    assert run.steps["start_us"].to_list() == [0.0, 10_000.0]
    assert run.steps["duration_us"].to_list() == [10_000.0, 10_000.0]
    assert phases(run) == [
        (0, "data", 4000.0, 1000.0, 2000.0, 1000.0),
        (0, "forward", 6000.0, 6000.0, 0.0, 0.0),
        (1, "data", 10_000.0, 0.0, 0.0, 10_000.0),
    ]
    assert run.phases["device_us"].to_list()[1] == 5.5
    assert {"steps", "phases", "loader", "schedstat"} <= run.signals
    assert run.missing["device_ops"] == "no profiler window was recorded: record(trace=5)"
    assert run.notes == ()


def test_moments_are_exact_to_the_nanosecond() -> None:
    run = run_of([recorded(steps=[(0, _START, _START + 1, False, 0, 1), (1, _START + 3, _START + 10, False, 0, 1)])])

    assert run.steps["start_us"].to_list() == [0.0, 0.003]
    assert run.steps["duration_us"].to_list() == [0.001, 0.007]


def test_a_run_queue_reading_that_came_late_is_taken_from_the_row_before() -> None:
    # 4 ms off the CPU in each row; 6 ms of waiting for a core were counted in the second: 2 of them belong to the first
    rows = [(0, "data", 5 * _MS, 1 * _MS, 0, None), (0, "forward", 5 * _MS, 1 * _MS, 6 * _MS, None)]

    run = run_of([recorded(steps=steps(1), phases=rows)])

    assert phases(run) == [
        (0, "data", 5000.0, 1000.0, 2000.0, 2000.0),
        (0, "forward", 5000.0, 1000.0, 4000.0, 0.0),
    ]


def test_a_wait_that_was_counted_late_is_taken_from_the_phase_before_and_from_no_other() -> None:
    # the loader slept 20 ms and waited 10 ms for a core, of which the kernel told 6 ms only while forward ran
    rows = [
        (0, "data", 31 * _MS, _MS, 4 * _MS, None),
        (0, "forward", 12 * _MS, 10 * _MS, 8 * _MS, None),
        (0, "backward", 10 * _MS, 9 * _MS, 0, None),
    ]

    run = run_of([recorded(steps=steps(1, length_ns=53 * _MS), phases=rows)])

    assert run.phases["blocked_us"].to_list() == [20_000.0, 0.0, 1000.0]
    assert run.phases["runqueue_us"].to_list() == [10_000.0, 2000.0, 0.0]


def test_counters_a_little_above_the_wall_time_leave_nothing_blocked() -> None:
    rows = [(0, "data", 5 * _MS, 6 * _MS, 0, None), (0, "forward", 5 * _MS, 2 * _MS, 2_200_000, None)]

    run = run_of([recorded(steps=steps(1), phases=rows)])

    assert run.phases["blocked_us"].to_list() == [0.0, 0.0]
    assert run.phases["runqueue_us"].sum() == pytest.approx(10_000 - 8000)
    assert (run.phases[["cpu_us", "runqueue_us"]] >= 0).all(axis=None)


def test_counters_far_above_the_wall_time_are_not_believed() -> None:
    rows = [(0, "data", 10 * _MS, 6 * _MS, 5 * _MS, None)]

    run = run_of([recorded(steps=steps(1), phases=rows)])

    assert run.phases["cpu_us"].to_list() == [6000.0]
    assert run.phases[["runqueue_us", "blocked_us"]].isna().all(axis=None)
    assert run.gaps["column"].to_list() == ["runqueue_us", "blocked_us"]
    assert "above the wall time by 10 %" in run.missing["schedstat"]
    assert step_ledger(run)["part"].to_list() == ["data.wall"]


def test_without_schedstat_the_split_is_missing_with_its_reason() -> None:
    run = run_of([recorded(steps=steps(1), phases=[(0, "data", 10 * _MS, 6 * _MS, None, None)])])

    assert run.phases[["runqueue_us", "blocked_us"]].isna().all(axis=None)
    assert run.missing["schedstat"].startswith("schedstat absent")
    assert "schedstat" not in run.signals


times = st.integers(0, 10_000_000)


@given(st.lists(st.tuples(times, times, st.one_of(st.none(), times)), min_size=1, max_size=60))
def test_parts_are_never_negative_and_sum_to_the_wall_time(rows: list[tuple[int, int, int | None]]) -> None:
    wall, cpu, runqueue = (np.array([row[place] for row in rows], dtype=np.float64) for place in range(3))

    found = split(wall, cpu, runqueue)

    known = np.isfinite(found.blocked)
    total = found.cpu + found.runqueue + found.blocked
    assert np.allclose(total[known], wall[known], rtol=1e-12, atol=1e-6)
    assert all((part[known] >= 0).all() for part in (found.cpu, found.runqueue, found.blocked))
    assert (known == np.isfinite(runqueue)).all() or found.reason


@given(st.lists(st.tuples(times, st.floats(0, 1), st.floats(0, 1), st.floats(-0.4, 0.4)), min_size=2, max_size=60))
def test_late_readings_change_no_sum(rows: list[tuple[int, float, float, float]]) -> None:
    wall, cpu_share, runqueue_share, late = (np.array([row[place] for row in rows]) for place in range(4))
    cpu = wall * cpu_share
    runqueue = (wall - cpu) * runqueue_share
    shift = np.minimum(np.abs(late[:-1]) * wall[:-1], runqueue[:-1])  # counted in the row after its own
    runqueue[:-1] -= shift
    runqueue[1:] += shift

    found = split(wall, cpu, runqueue)

    if (wall - cpu - runqueue).sum() >= 0:
        assert found.runqueue.sum() == pytest.approx(runqueue.sum(), abs=1e-3)
        assert found.cpu.sum() == pytest.approx(cpu.sum(), abs=1e-3)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=50))
def test_settled_values_are_not_negative_never_larger_and_keep_their_sum(values: list[float]) -> None:
    given_values = np.array(values)

    made = settled(given_values)

    assert (made >= 0).all()
    assert (made <= np.maximum(given_values, 0.0) + 1e-9).all()
    if given_values.sum() >= 0:
        assert made.sum() == pytest.approx(given_values.sum(), abs=1e-9)


def test_what_phases_leave_of_a_step_stands_under_other() -> None:
    rows = [
        (0, "data", 7 * _MS, _MS, 0, None),
        (1, "data", 9 * _MS, _MS, 0, None),
        (1, "other", 950_000, 950_000, 0, None),
        (2, "data", 10 * _MS, 0, 0, None),
    ]

    run = run_of([recorded(steps=steps(3), phases=rows)])

    assert run.phases.groupby("step")["wall_us"].sum().to_list() == pytest.approx([10_000.0] * 3)
    other = run.phases[run.phases["phase"] == "other"].set_index("step")
    assert other["wall_us"].to_list() == pytest.approx([3000.0, 1000.0])
    assert math.isnan(other.loc[0, "cpu_us"])
    assert other.loc[1, "cpu_us"] == pytest.approx(1000.0)  # a rest this small is as the rest of other
    assert run.notes == ("the phases of 2 steps left up to 3.00 ms of it: that stands under other",)
    assert len(step_ledger(run)) > 0


def test_phases_longer_than_their_step_are_shortened() -> None:
    run = run_of([recorded(steps=steps(1), phases=[(0, "data", 15 * _MS, 0, 0, None), (0, "forward", 5 * _MS, 0, 0, None)])])

    assert run.phases["wall_us"].to_list() == [7500.0, 2500.0]
    assert "1 step were up to 10.0 ms longer" in run.notes[0]
    assert len(step_ledger(run)) > 0


def test_two_rows_of_one_phase_are_one() -> None:
    rows = [(0, "optimizer", 4 * _MS, _MS, 0, 1.0), (0, "data", 3 * _MS, 0, 0, None), (0, "optimizer", 3 * _MS, _MS, 0, 2.0)]

    run = run_of([recorded(steps=steps(1), phases=rows)])

    assert sorted(phases(run)) == [(0, "data", 3000.0, 0.0, 0.0, 3000.0), (0, "optimizer", 7000.0, 2000.0, 0.0, 5000.0)]


def test_values_with_a_column_go_to_training_and_the_others_to_metrics() -> None:
    rows = [
        (0, _START, "loss", 2.0),
        (0, _START, "accuracy", 0.5),
        (1, _START + _MS, "loss", float("nan")),
        (1, _START + _MS, "learning_rate", 0.1),
        (1, _START + 2 * _MS, "learning_rate", 0.2),
        (2, _START + 3 * _MS, "batch_size", 8),
        (2, _START + 3 * _MS, "skipped", 1),
        (3, _START, "gradient_norm", None),
        (3, _START, "loss", "nonsense"),
    ]

    run = run_of([recorded(steps=steps(1), values=rows)])

    training = run.training.set_index("step")
    assert training.index.to_list() == [0, 1, 2]
    assert training["learning_rate"].to_list()[1] == 0.2
    assert training["finite"].to_list() == [True, False, pd.NA]
    assert training["skipped"].to_list() == [pd.NA, pd.NA, True]
    assert training["time_us"].to_list() == [0.0, 2000.0, 3000.0]
    assert run.metrics[["step", "name", "value"]].to_numpy().tolist() == [[0, "accuracy", 0.5]]
    assert run.notes == ("1 value left out: no number",)


def test_training_that_went_back_is_said_and_its_later_values_count() -> None:
    rows = [(step, _START + step, "loss", 1.0) for step in range(6)]
    rows += [(step, _START + 10 + step, "loss", 2.0) for step in range(3, 8)]

    run = run_of([recorded(values=rows)])

    assert run.training["loss"].to_list() == [1.0] * 3 + [2.0] * 5
    assert run.notes == ("the training went back to step 3: steps 3-5 were told of twice, the later values count",)


def test_ranks_of_one_boot_share_a_clock() -> None:
    one = recorded(0, steps=steps(1), header={"world_size": 2})
    two = recorded(1, steps=steps(1, _START + 3 * _MS), header={"world_size": 2, "wall_ns": 5, "host": "container-b"})

    run = run_of([two, one])

    assert run.steps[["rank", "start_us"]].to_numpy().tolist() == [[0, 0.0], [1, 3000.0]]
    assert run.notes == ()
    assert "cross_rank_times" not in run.missing


def test_ranks_of_other_machines_are_aligned_by_the_clock_of_the_day_and_that_is_said() -> None:
    one = recorded(0, steps=steps(1), header={"world_size": 3})
    other = {"boot": "boot-b", "world_size": 3, "monotonic_ns": 1000, "wall_ns": 1_700_000_000_000_000_000}
    two = recorded(1, steps=steps(1, 1000 + 3 * _MS), header=other)

    run = run_of([one, two])

    # rank 0's first step began 1 ms after its header, rank 1's 3 ms after its own, written at the same time of day
    assert run.steps["start_us"].to_list() == [0.0, 2000.0]
    assert run.notes[0].startswith("rank 1 ran on another machine than rank 0")
    assert run.notes[1] == "read 2 of 3 ranks: answers that need all of them say so"
    assert run.missing["cross_rank_times"] == run.notes[0]


def test_last_row_of_a_gap_counts_and_a_whole_table_gives_its_reason() -> None:
    gaps = [
        ("gpu_samples", None, None, "no driver", _START, 1),
        ("host_samples", "load_1m", None, "no /proc", _START, 1),
        ("host_samples", "load_1m", None, "no /proc", _START, 9),
    ]

    run = run_of([recorded(steps=steps(1), gaps=gaps)])

    assert run.gaps[["table", "column", "reason", "count"]].astype(object).to_numpy().tolist() == [
        ["gpu_samples", pd.NA, "no driver", 1],
        ["host_samples", "load_1m", "no /proc", 9],
    ]
    assert run.missing["gpu_samples"] == "no driver"


def test_config_is_what_the_user_gave_over_what_was_seen() -> None:
    seen = [(1, "num_workers", 0), (2, "num_workers", 4), (3, "learning_rate", 0.1)]

    run = run_of([recorded(config=seen, header={"config": {"learning_rate": "Infinity", "name": "x"}})])

    assert dict(run.config) == {"num_workers": 4, "learning_rate": math.inf, "name": "x"}


def test_how_it_stands_is_said_in_words() -> None:
    costs = [(_START + 9 * _MS, 40_000, 4, 90_000)]
    one = recorded(0, "killed", steps=steps(2), costs=costs, header={"world_size": 3})
    two = recorded(1, "running", header={"world_size": 3})
    three = recorded(2, "failed", steps=steps(1), header={"world_size": 3})

    run = run_of([one, two, three])

    assert run.recordings[0] == Recording(0, "killed", "", 20_000.0, 10.0, 0.009)
    assert run.notes[:3] == (
        "rank 0 was killed: complete up to step 1, 20.0 ms after the start",
        "rank 1 is still running: read before a step ended",
        "rank 2 failed (ValueError: no): complete up to step 0, 10.0 ms after the start",
    )


def test_phases_of_a_last_step_that_were_cut_off_are_left_out() -> None:
    rows = [(0, "data", 10 * _MS, 0, 0, None), (1, "data", 4 * _MS, 0, 0, None)]

    run = run_of([recorded(0, "killed", steps=steps(2), phases=[*rows])])

    assert phases(run) == [(0, "data", 10_000.0, 0.0, 0.0, 10_000.0)]
    assert run.steps["step"].to_list() == [0, 1]
    assert any("were not written whole" in note for note in run.notes)


def test_phases_of_a_first_step_that_memory_holds_in_part_are_left_out() -> None:
    rows = [(1, "forward", 4 * _MS, 0, 0, None), (2, "data", 10 * _MS, 0, 0, None)]

    run = run_of([recorded(steps=steps(3), phases=rows)])

    assert phases(run) == [(2, "data", 10_000.0, 0.0, 0.0, 10_000.0)]


def test_samples_keep_their_columns_and_the_host() -> None:
    sample = dict.fromkeys(COLUMNS["host_samples"]) | {"time_ns": _START, "cpu_share": 0.5, "own_threads": 3}
    gpu = dict.fromkeys(COLUMNS["gpu_samples"]) | {"time_ns": _START + _MS, "gpu": 0, "memory_used_bytes": 2**40}

    run = run_of([recorded(host_samples=[tuple(sample.values())], gpu_samples=[tuple(gpu.values())])])

    assert run.host_samples[["host", "time_us", "cpu_share", "own_threads"]].to_numpy().tolist() == [["node-a", 0.0, 0.5, 3]]
    assert run.gpu_samples.loc[0, "memory_used_bytes"] == 2**40
    assert run.gpu_samples.loc[0, "time_us"] == 1000.0
    assert run.host_samples["load_1m"].isna().all()


def test_pauses_of_the_garbage_collector_are_host_events() -> None:
    run = run_of([recorded(host_ops=[("7", "gc", "generation2", _START, _START + _MS)])])

    assert run.host_ops[["process", "category", "start_us", "duration_us"]].to_numpy().tolist() == [["17", "gc", 0.0, 1000.0]]
    assert "gc" in run.signals


def test_hostile_names_and_numbers_are_data() -> None:
    header = {
        "host": "<script>" * 10_000,
        "machine": {"devices": ["</script>", 7], "device_memory_bytes": [2**80, "x"], "cpu_capacity": "many"},
        "signals": ["steps", 3],
    }
    rows: dict[str, list[Any]] = {
        "steps": [(0, _START, _START + _MS, None, "x", []), (2**70, 0, 1, False, 0, 1), (3, None, 2, False, 0, 1)],
        "phases": [(0, "<b>", 2**70, 1, 1, "x"), (0, None, 1, 1, 1, None), (0, {"a": 1}, "NaN", [], None, None)],
        "values": [("zero", None, ["loss"], 1.0), (0, _START, "loss", [1.0]), (None, _START, "loss", 3.0)],
        "gaps": [(None, None, "x", "why", -5, 2**70)],
        "windows": [("a", 1, 2, 3, "../../etc/passwd"), (0, 1, _START, _START, "../../etc/passwd")],
        "host_ops": [(1, None, 5, _START + 5, _START)],
    }

    run = run_of([recorded(header=header, **rows)])

    assert run.steps["step"].to_list() == [0]
    assert run.machine == Machine(("</script>",), (0, 0), None)
    assert run.metrics[["step", "value"]].isna().sum().to_list() == [2, 0]
    assert "the trace of steps 0 to 1 is not there" in run.notes


anything = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.integers(0, 5),
        st.floats(),
        st.sampled_from(["loss", "data", "other", "NaN", "<b>", "time_us", "finite", "micro_batches"]),
    ),
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=3,
)


@pytest.mark.no_cover
@given(st.data())
@settings(max_examples=25, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
def test_whatever_stands_in_the_rows_there_is_a_run(data: st.DataObject) -> None:
    rows = {
        table: data.draw(st.lists(st.tuples(*[anything] * len(names)), max_size=4), label=table)
        for table, names in COLUMNS.items()
    }
    rows["steps"] = [*rows["steps"], *steps(2)]
    header = {name: data.draw(anything, label=name) for name in ("host", "boot", "config", "machine", "signals", "world_size")}

    run = run_of([recorded(data.draw(st.sampled_from([0, 1])), header=header, **rows)])

    assert len(run.steps) >= 2
    step_ledger(run, clock="host") if len(run.phases) else None


def test_recording_without_any_row_is_a_run_without_steps() -> None:
    run = run_of([recorded()])

    assert run.steps.empty
    assert run.missing["steps"].startswith("no step ended")
    assert run.recordings == (Recording(0, "finished"),)
