"""What holds a memory at a moment: blocks by category, phase and stack sum to the total, whatever was freed, lost or unseen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb import read_trace
from perfnb.errors import LedgerError
from perfnb.memory_ledger import BEFORE_RECORDING, HeldBlocks, memory_at, memory_by, memory_growth, memory_peak
from perfnb.prediction import Unknown
from perfnb.run import Run
from perfnb.tables import conform, table_from_text

SNAPSHOT = """rank device sequence action           address bytes  category     phase    stack
              0    0      -1       existing         1       100    -            -        -
              0    0      0        segment_alloc    9       2000   -            -        -
              0    0      1        alloc            2       50     -            -        torch/optim/adamw.py:7:step;a.py:3:f
              0    0      2        alloc            3       400    activation   forward  model.py:5:forward
              0    0      3        free_requested   3       -400   -            -        -
              0    0      4        alloc            3       30     -            -        train.py:9:_engine_run_backward
              0    0      5        alloc            4       20     -            -        train.py:9:log"""


def held(found: HeldBlocks | Unknown) -> HeldBlocks:
    assert isinstance(found, HeldBlocks), found
    return found


def run_of(text: str) -> Run:
    return Run(allocations=table_from_text("allocations", text))


def test_the_peak_lists_the_blocks_that_are_there_at_the_largest_sum() -> None:
    peak = held(memory_peak(run_of(SNAPSHOT)))

    assert (peak.total_bytes, peak.unseen_bytes, peak.is_at_least, peak.sequence) == (550, 0, False, 2)
    assert peak.blocks["bytes"].to_list() == [400, 100, 50]


def test_categories_come_from_the_recording_and_else_from_the_stack() -> None:
    by = memory_by(held(memory_peak(run_of(SNAPSHOT))))

    assert by.set_index("category")["bytes"].to_dict() == {"activation": 400, "existing": 100, "optimizer": 50}
    assert by["share"].sum() == pytest.approx(1.0)


def test_a_moment_is_given_by_sequence_and_an_address_can_be_handed_out_again() -> None:
    end = memory_by(held(memory_at(run_of(SNAPSHOT), sequence=5)))

    assert end.set_index("category")["bytes"].to_dict() == {
        "existing": 100,
        "optimizer": 50,
        "backward": 30,
        "forward or autograd": 20,
    }


def test_growth_between_two_moments_is_told_by_stack_and_sums_to_it() -> None:
    run = run_of(SNAPSHOT)

    grown = memory_growth(held(memory_at(run, sequence=1)), held(memory_at(run, sequence=5)))

    assert grown[["stack", "growth_bytes", "growth_blocks"]].to_numpy().tolist() == [
        ["train.py:9:_engine_run_backward", 30, 1],
        ["train.py:9:log", 20, 1],
    ]


def test_growth_names_what_shrank_last() -> None:
    run = run_of(SNAPSHOT)

    grown = memory_growth(held(memory_at(run, sequence=2)), held(memory_at(run, sequence=4)), by=["category", "phase"])

    assert grown[["category", "growth_bytes"]].to_numpy().tolist() == [["backward", 30], ["activation", -400]]


def test_a_trace_tells_only_how_much_was_there_before_it() -> None:
    trace = run_of(
        """rank device time_us address bytes allocated_bytes
           0    0      1       7       64    1064
           0    0      2       5       -200  864
           0    0      3       8       32    896"""
    )

    peak = held(memory_peak(trace))
    end = held(memory_at(trace, time_us=3.5))

    assert (peak.total_bytes, peak.unseen_bytes, peak.time_us, peak.sequence) == (1064, 1000, 1.0, None)
    assert (end.total_bytes, end.unseen_bytes) == (896, 800)
    assert memory_by(end).iloc[0][["category", "bytes", "blocks"]].to_list() == [BEFORE_RECORDING, 800, 0]


def test_without_totals_the_unseen_bytes_are_at_least_what_was_freed_of_them() -> None:
    trace = run_of("rank device time_us address bytes\n0 - 1 7 64\n0 - 2 5 -200")

    peak = held(memory_peak(trace))

    assert (peak.total_bytes, peak.unseen_bytes, peak.is_at_least) == (264, 200, True)


def test_a_block_whose_free_was_lost_ends_where_its_address_is_handed_out_again() -> None:
    trace = run_of("rank device time_us address bytes allocated_bytes\n0 0 1 7 64 64\n0 0 2 7 80 80")

    assert held(memory_peak(trace)).total_bytes == 80


@pytest.mark.parametrize(
    ("call", "reason", "needs"),
    [
        (lambda: memory_peak(Run()), "no single allocations", "memory snapshot"),
        (lambda: memory_peak(run_of(SNAPSHOT), rank=3), "no allocations of rank 3", "memory snapshot"),
        (lambda: memory_peak(run_of(SNAPSHOT), device="host"), "device host", "memory snapshot"),
        (lambda: memory_at(run_of(SNAPSHOT), time_us=1.0), "have no time_us", "the other"),
        (lambda: memory_at(run_of(SNAPSHOT), sequence=-9), "nothing was recorded up to", "a later moment"),
        (lambda: memory_peak(run_of("rank device address bytes\n0 0 1 2\n0 1 1 2")), "several devices: 0, 1", "device"),
    ],
)
def test_what_cannot_be_told_says_what_would_tell_it(call: object, reason: str, needs: str) -> None:
    found = call()  # type: ignore[operator]

    assert isinstance(found, Unknown)
    assert reason in found.reason
    assert needs in found.needs


def test_a_group_that_is_none_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="grouped by layer: there are category, phase, stack"):
        memory_by(held(memory_peak(run_of(SNAPSHOT))), "layer")
    with pytest.raises(ValueError, match="time_us or as sequence"):
        memory_at(run_of(SNAPSHOT))


def test_the_running_time_grows_no_faster_than_the_events() -> None:
    count = 200_000
    address = [place % 1000 for place in range(count)]
    frame = pd.DataFrame({"rank": 0, "device": 0, "address": address, "bytes": [8, -8] * (count // 2)})
    frame["address"] = frame["address"] // 2

    peak = held(memory_peak(Run(allocations=conform("allocations", frame))))

    assert peak.total_bytes == 8


@pytest.mark.no_cover
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 50), st.booleans()), min_size=1, max_size=30))
def test_blocks_and_unseen_bytes_always_sum_to_a_walk_event_by_event(events: list[tuple[int, int, bool]]) -> None:
    living: dict[int, int] = {}
    rows, unseen_free, highest = [], [0], []
    for address, size, is_free in events:
        if is_free:
            freed = living.pop(address, None)
            unseen_free.append(unseen_free[-1] + (size if freed is None else 0))
            rows.append((address, -size if freed is None else -freed))
        else:
            living[address] = size
            unseen_free.append(unseen_free[-1])
            rows.append((address, size))
        highest.append(sum(living.values()) - unseen_free[-1])
    frame = pd.DataFrame(rows, columns=["address", "bytes"]).assign(rank=0, device=0)

    peak = held(memory_peak(Run(allocations=conform("allocations", frame))))

    assert peak.total_bytes == max(highest) + unseen_free[-1]
    assert int(memory_by(peak)["bytes"].sum()) == peak.total_bytes


def test_blocks_of_a_trace_are_told_by_the_operators_that_ran_when_they_were_made() -> None:
    trace = Run(
        allocations=table_from_text(
            "allocations",
            """rank device time_us address bytes allocated_bytes
               0    0      3       1       10    10
               0    0      13      2       20    30
               0    0      25      3       40    70
               0    0      40      4       80    150""",
        ),
        host_ops=table_from_text(
            "host_ops",
            """rank thread name                                     start_us duration_us
               0    1      ProfilerStep#3                           0        100
               0    1      aten::linear                             1        8
               0    1      aten::addmm                              2        3
               0    2      "autograd::engine::evaluate_function: X" 11       6
               0    2      aten::mm                                 12       3
               0    1      Optimizer.step#AdamW.step                20       10
               1    1      aten::other                              39       9""",
        ),
    )

    peak = held(memory_peak(trace))

    assert memory_by(peak)[["category", "bytes"]].to_numpy().tolist() == [
        ["not told", 80],
        ["optimizer", 40],
        ["backward", 20],
        ["forward or data", 10],
    ]
    assert peak.blocks["stack"].iloc[-1] == "aten::addmm;aten::linear"


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_real_profile_is_told_by_operators_and_sums_to_its_peak(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    model, path = torch.nn.Linear(64, 64), tmp_path / "trace.json"
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        loss = model(torch.randn(512, 64)).relu().sum()
        loss.backward()
    profile.export_chrome_trace(str(path))

    peak = held(memory_peak(read_trace(path)))

    activation = 512 * 64 * 4
    by = memory_by(peak).set_index("category")["bytes"].to_dict()
    assert by["forward or data"] >= 2 * activation  # the input and what relu gave
    assert sum(by.values()) == peak.total_bytes >= 3 * activation


def test_a_moment_is_given_in_one_way_and_parts_that_do_not_sum_are_an_error() -> None:
    run = run_of(SNAPSHOT)
    peak = held(memory_peak(run))
    wrong = replace(peak, total_bytes=551)

    with pytest.raises(ValueError, match="as time_us or as sequence"):
        memory_at(run, time_us=1.0, sequence=1)
    with pytest.raises(LedgerError, match="sum to 550 bytes, the memory holds 551"):
        memory_by(wrong)


def test_a_recording_without_times_asks_for_the_sequence() -> None:
    found = memory_at(run_of(SNAPSHOT), time_us=1.0)

    assert isinstance(found, Unknown)
    assert "rows of this recording have no time_us" in found.reason
