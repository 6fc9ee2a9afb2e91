"""The step ledger by hand: one gap per cause, edges, devices, and what must never change."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.device_time import BREAKDOWN_COLUMNS, device_breakdown
from perfnb.errors import LedgerError, NoStepsError, PerfnbError
from perfnb.ledger import _check, steady_steps, step_ledger, used_steps
from perfnb.run import Run
from perfnb.tables import conform, table_from_text

ONE_STEP = "rank step start_us duration_us\n0 1 0 1000"


def run_of(host_ops: str, device_ops: str, steps: str = ONE_STEP) -> Run:
    return Run(
        steps=table_from_text("steps", steps),
        host_ops=table_from_text("host_ops", host_ops) if host_ops else table_from_text("host_ops", HOST),
        device_ops=table_from_text("device_ops", device_ops),
        signals=frozenset({"steps", "host_ops", "device_ops"}),
    )


HOST = "rank process thread category name start_us duration_us correlation"
DEVICE = "rank device stream kind name start_us duration_us correlation"


def parts_of(run: Run) -> dict[str, float]:
    ledger = step_ledger(run)
    return {part: time for part, time in zip(ledger["part"], ledger["time_us"], strict=True) if time > 0}


def test_each_cause_of_a_gap_has_its_part() -> None:
    host = f"""{HOST}
        0 1 1 runtime    cudaLaunchKernel                     0   5  1
        0 1 1 annotation enumerate(DataLoader)#_It.__next__   100 90 -
        0 1 1 runtime    cudaLaunchKernel                     200 5  2
        0 1 1 runtime    cudaDeviceSynchronize                206 134 -
        0 1 1 runtime    cudaLaunchKernel                     340 5  3
        0 1 1 operator   aten::mul                            420 50 -
        0 1 1 runtime    cudaLaunchKernel                     470 5  4
        0 1 1 runtime    cudaMemcpyAsync                      600 60 5
        0 1 1 runtime    cudaLaunchKernel                     605 1  6"""
    device = f"""{DEVICE}
        0 0 7 compute a                                   5   95  1
        0 0 7 compute b                                   205 95  2
        0 0 7 compute c                                   345 55  3
        0 0 7 compute d                                   475 125 4
        0 0 7 copy    "Memcpy_HtoD_(Pageable_->_Device)"  660 10  5
        0 0 7 compute e                                   690 310 6"""

    parts = parts_of(run_of(host, device.replace("HtoD_(Pageable", "HtoD (Pageable")))

    assert parts == {
        "compute": 95.0 + 95.0 + 55.0 + 125.0 + 310.0,
        "exposed_copy": 10.0,
        "idle.launch": 5.0 + 5.0 + 5.0 + (50.0 + 5.0) + 5.0,  # call to start, aten::mul, and latency of a queued kernel
        "idle.data": 90.0,
        "idle.python": 10.0 + 20.0,  # 190 to 200 and 400 to 420
        "idle.sync": 40.0,  # 300 to 340: the call covers the start of the gap
        "idle.transfer": 60.0,  # 600 to 660
        "idle.dependency": 15.0,  # 670 to 690, launched at 605: all but the usual latency of 5
    }


def test_an_op_without_a_launch_ends_a_gap_that_nothing_explains() -> None:
    run = run_of("", f"{DEVICE}\n0 0 7 compute a 400 100 -")

    assert parts_of(run) == {"compute": 100.0, "idle.unattributed": 900.0}


def test_precedence_makes_the_parts_disjoint() -> None:
    run = run_of(
        "",
        f"""{DEVICE}
            0 0 7  compute       gemm 0   500 -
            0 0 20 communication nccl 400 300 -
            0 0 21 copy          HtoD 300 700 -
            0 0 22 memset        set  0   10  -""",
    )

    assert parts_of(run) == {"compute": 500.0, "exposed_communication": 200.0, "exposed_copy": 300.0}


def test_a_step_without_device_work_is_all_idle() -> None:
    run = run_of("", f"{DEVICE}\n0 0 7 compute a 0 1000 -", "rank step start_us duration_us\n0 1 0 1000\n0 2 1000 50")

    ledger = step_ledger(run)

    assert ledger.loc[ledger["step"].eq(2) & ledger["part"].eq("idle.unattributed"), "time_us"].to_list() == [50.0]


def test_two_devices_of_one_rank_each_sum_to_the_step() -> None:
    run = run_of("", f"{DEVICE}\n0 0 7 compute a 0 1000 -\n0 1 7 compute a 0 400 -")

    sums = step_ledger(run).groupby("device")["time_us"].sum()

    assert sums.to_list() == [1000.0, 1000.0]


def test_a_host_clock_that_is_split_gives_cpu_runqueue_and_blocked() -> None:
    phases = """rank step phase wall_us cpu_us runqueue_us blocked_us
                0    1    data  700     100    200         400
                0    1    other 300     300    0           0"""
    run = Run(steps=table_from_text("steps", ONE_STEP), phases=table_from_text("phases", phases))

    assert parts_of(run) == {"data.cpu": 100.0, "data.runqueue": 200.0, "data.blocked": 400.0, "other.cpu": 300.0}


def test_phases_that_cannot_be_told_apart_are_one_part_never_other() -> None:
    run = Run(
        steps=table_from_text("steps", ONE_STEP),
        phases=table_from_text("phases", "rank step phase wall_us\n0 1 data 100\n0 1 other -"),
    )

    assert parts_of(run) == {"data.wall": 100.0, "unsplit.wall": 900.0}


def test_no_steps_and_no_phases_are_errors_that_say_what_to_record() -> None:
    with pytest.raises(NoStepsError, match=r"call prof\.step\(\)"):
        step_ledger(Run())
    with pytest.raises(NoStepsError, match="no host ledger"):
        step_ledger(Run(steps=table_from_text("steps", ONE_STEP)))
    with pytest.raises(PerfnbError, match="clock='gpu' is not known"):
        step_ledger(Run(steps=table_from_text("steps", ONE_STEP)), clock="gpu")  # type: ignore[arg-type]


def test_parts_that_miss_their_step_are_a_ledger_error() -> None:
    steps = table_from_text("steps", ONE_STEP)
    row = {"rank": 0, "step": 1, "clock": "host", "device": pd.array([pd.NA], dtype="Int64"), "part": "data.wall"}

    _check(pd.DataFrame(row | {"time_us": [1000.0005]}), steps)
    with pytest.raises(LedgerError, match=r"sum to 999\.900 us"):
        _check(pd.DataFrame(row | {"time_us": [999.9]}), steps)


@pytest.mark.parametrize(("count", "used"), [(1, [0]), (2, [0, 1]), (3, [1, 2]), (5, [1, 2, 3, 4])])
def test_the_first_step_is_left_out_from_three_on(count: int, used: list[int]) -> None:
    steps = conform(
        "steps", pd.DataFrame({"rank": 0, "step": range(count), "start_us": np.arange(count) * 10.0, "duration_us": 10.0})
    )

    assert used_steps(Run(steps=steps))["step"].to_list() == used


def test_a_last_step_whose_device_work_was_cut_off_is_left_out() -> None:
    steps = "rank step start_us duration_us\n0 0 0 100\n0 1 100 100\n0 2 200 100"

    def used(last_end: int) -> list[int]:
        return used_steps(run_of("", f"{DEVICE}\n0 0 7 compute a 0 {last_end} -", steps))["step"].to_list()

    assert used(295) == [1, 2]
    assert used(294) == [1]


def test_five_more_steps_warm_up_where_enough_remain() -> None:
    def steady(count: int) -> int:
        frame = pd.DataFrame({"rank": 0, "step": range(count), "start_us": np.arange(count) * 10.0, "duration_us": 10.0})
        return len(steady_steps(Run(steps=conform("steps", frame))))

    assert [steady(20), steady(21), steady(40)] == [19, 15, 34]


OPS = st.lists(
    st.tuples(st.sampled_from(["compute", "communication", "copy", "memset"]), st.integers(0, 300), st.integers(0, 120)),
    min_size=1,
    max_size=15,
)


def device_run(ops: list[tuple[str, int, int]], scale: float = 1.0, ranks: tuple[int, ...] = (0,)) -> Run:
    rows = [
        {"rank": rank, "device": 0, "kind": kind, "name": "x", "start_us": start * scale, "duration_us": length * scale}
        for rank in ranks
        for kind, start, length in ops
    ]
    steps = [
        {"rank": rank, "step": step, "start_us": step * 150.0 * scale, "duration_us": 150.0 * scale}
        for rank in ranks
        for step in range(3)
    ]
    return Run(
        steps=conform("steps", pd.DataFrame(steps)),
        device_ops=conform("device_ops", pd.DataFrame(rows)),
        signals=frozenset({"steps", "device_ops"}),
    )


def together(one: Run, two: Run) -> Run:
    """The rows of two runs of different ranks in one."""
    rows = {name: pd.concat([getattr(one, name), getattr(two, name)]) for name in ("steps", "device_ops")}
    return dataclasses.replace(one, **{name: conform(name, table) for name, table in rows.items()})


@pytest.mark.no_cover
@given(OPS)
def test_the_breakdown_is_that_of_a_brute_force_timeline(ops: list[tuple[str, int, int]]) -> None:
    row = device_breakdown(device_run(ops)).iloc[0]

    cells = {
        kind: {t for k, start, length in ops if k == kind for t in range(start, start + length)}
        for kind in ("compute", "communication")
    }
    copies = {t for kind, start, length in ops if kind in ("copy", "memset") for t in range(start, start + length)}
    window = max(start + length for _, start, length in ops) - min(start for _, start, _ in ops)
    compute, communication = cells["compute"], cells["communication"]
    assert row[list(BREAKDOWN_COLUMNS)].to_dict() == {
        "window_us": window,
        "busy_us": len(compute | communication | copies),
        "compute_us": len(compute),
        "communication_us": len(communication),
        "exposed_communication_us": len(communication - compute),
        "copy_us": len(copies),
        "exposed_copy_us": len(copies - communication - compute),
        "idle_us": window - len(compute | communication | copies),
    }


@pytest.mark.no_cover
@given(OPS)
def test_order_of_rows_scale_of_time_and_other_ranks_change_nothing(ops: list[tuple[str, int, int]]) -> None:
    ledger = step_ledger(device_run(ops))["time_us"].to_numpy()

    both = step_ledger(together(device_run(ops[::-1]), device_run(ops, scale=4.0, ranks=(3,))))

    assert np.allclose(both.loc[both["rank"].eq(0), "time_us"], ledger)
    assert np.allclose(both.loc[both["rank"].eq(3), "time_us"], ledger * 4)


@pytest.mark.no_cover
@given(OPS, st.integers(1, 119))
def test_cutting_a_kernel_in_two_changes_nothing(ops: list[tuple[str, int, int]], at: int) -> None:
    kind, start, length = ops[0]
    cut = [(kind, start, min(at, length)), (kind, start + min(at, length), length - min(at, length)), *ops[1:]]

    assert np.allclose(step_ledger(device_run(cut))["time_us"], step_ledger(device_run(ops))["time_us"])


def test_steps_in_which_a_phase_was_not_timed_are_not_used() -> None:
    steps = table_from_text("steps", "rank step start_us duration_us\n0 1 0 9\n0 2 9 9")
    phases = table_from_text("phases", "rank step phase wall_us\n0 1 data 6\n0 1 other 3\n0 2 data -\n0 2 other -")
    host = table_from_text("host_ops", f"{HOST}\n0 1 1 operator aten::mul 0 1 -")

    assert used_steps(Run(steps=steps, phases=phases))["step"].to_list() == [1]
    assert used_steps(Run(steps=steps, phases=phases, host_ops=host))["step"].to_list() == [1, 2]  # a trace


def test_a_breakdown_by_anything_else_is_refused() -> None:
    with pytest.raises(PerfnbError, match="use 'window' or 'step'"):
        device_breakdown(Run(), by="kernel")  # type: ignore[arg-type]
