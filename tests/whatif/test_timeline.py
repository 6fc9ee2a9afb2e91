"""Graphs of host and device work against cases worked out by hand, in microseconds, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perfnb.intervals import union
from perfnb.ledger import steady_steps
from perfnb.prediction import Unknown
from perfnb.read.kineto import read_kineto
from perfnb.run import Run
from perfnb.tables import empty, table_from_text
from perfnb.whatif.segments import compile_timeline
from perfnb.whatif.timeline import Timeline, build_timeline
from perfnb.whatif.timeline_edits import Selector, insert, remove, scale, unblock
from perfnb.whatif.trace_replay import replayed_steps_us

STEPS = "rank step start_us duration_us\n"
HOST = "rank process thread category name start_us duration_us correlation stream\n"
DEVICE = "rank device stream kind name start_us duration_us correlation\n"


def traced(steps: str, host: str, device: str) -> Run:
    return Run(
        steps=table_from_text("steps", STEPS + steps),
        host_ops=table_from_text("host_ops", HOST + host),
        device_ops=table_from_text("device_ops", DEVICE + device) if device else empty("device_ops"),
        signals=frozenset({"host_ops", "device_ops"}),
    )


def graph_of(run: Run, first_step: int = 1) -> Timeline:
    graph = build_timeline(run, 0, run.steps[run.steps["step"] >= first_step])
    assert isinstance(graph, Timeline), graph
    return graph


def replayed(graph: Timeline, *waits: float) -> list[float]:
    return replayed_steps_us(compile_timeline(graph), waits or (0.0,) * (len(graph.edges_us) - 1))


TWO_KERNELS = traced(
    "0 1 0 211",
    """0 1 1 runtime cudaLaunchKernel      0  5   1 -
       0 1 1 runtime cudaLaunchKernel      15 5   2 -
       0 1 1 runtime cudaDeviceSynchronize 25 186 3 -""",
    """0 0 7 compute first  8   100 1
       0 0 7 compute second 109 100 2""",
)


def test_a_recorded_step_is_replayed_exactly() -> None:
    assert replayed(graph_of(TWO_KERNELS)) == [211.0]


def test_a_shorter_kernel_ends_the_wait_for_it_earlier() -> None:
    halved = scale(graph_of(TWO_KERNELS), Selector("compute", "first"), 0.5)

    assert replayed(halved) == [161.0]  # 8-58, gap 1, 59-159, tail 2


def test_a_removed_kernel_leaves_its_stream_to_the_next() -> None:
    without = remove(graph_of(TWO_KERNELS), Selector("compute", "first"))

    # the second one had queued, so its own lag is not recorded: the trace's median, 8, counts: 15 + 8 + 100 + 2
    assert replayed(without) == [125.0]


def test_host_time_added_behind_a_busy_device_costs_nothing() -> None:
    longer = insert(graph_of(TWO_KERNELS), [20.0], 50.0)

    assert replayed(longer) == [211.0]  # the sync is reached at 75, the device works until 209


def test_host_time_removed_moves_the_launches_up() -> None:
    shorter = remove(graph_of(TWO_KERNELS), Selector("host", within=union([6.0], [14.0])))

    assert replayed(shorter) == [211.0]  # second launch at 7 in place of 15; it waits for the first kernel all the same


LOADER_AND_COPY = traced(
    """0 0 0   100
       0 1 100 52""",
    """0 1 1 runtime    cudaLaunchKernel 90  5  1 -
       0 1 1 annotation "enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__" 100 50 - -
       0 1 1 runtime    cudaMemcpyAsync  150 2  2 -""",
    """0 0 7 compute earlier                            98  42 1
       0 0 7 copy    "Memcpy HtoD (Pageable -> Device)" 150 2  2""",
)


def test_a_copy_from_pageable_memory_waits_for_the_stream_once_the_loader_no_longer_hides_that() -> None:
    graph = graph_of(LOADER_AND_COPY)

    assert replayed(graph, 50.0) == [52.0]
    assert replayed(graph, 0.0) == [42.0]  # the kernels end 40 after the step's start: 10 saved, not 50


def test_a_copy_from_pinned_memory_lets_the_host_go_on_at_the_end_of_the_call() -> None:
    graph = unblock(graph_of(LOADER_AND_COPY), Selector("copy", "HtoD"))

    assert replayed(graph, 50.0) == [52.0]
    assert replayed(graph, 0.0) == [2.0]


def test_a_read_removed_just_before_another_wait_saves_nothing() -> None:
    run = traced(
        "0 1 0 101",
        """0 1 1 runtime cudaLaunchKernel      0   5  1 -
           0 1 1 runtime cudaStreamSynchronize 10  90 2 -
           0 1 1 runtime cudaDeviceSynchronize 100 0  3 -""",
        "0 0 7 compute long 5 95 1",
    )
    graph = graph_of(run)

    assert replayed(graph) == [101.0]
    assert replayed(remove(graph, Selector("sync", "StreamSynchronize"))) == [101.0]


def test_a_read_removed_where_nothing_waits_later_saves_its_wait() -> None:
    run = traced(
        "0 1 0 120",
        """0 1 1 runtime cudaLaunchKernel      0  5  1 -
           0 1 1 runtime cudaStreamSynchronize 10 90 2 -""",
        "0 0 7 compute long 5 95 1",
    )

    assert replayed(remove(graph_of(run), Selector("sync"))) == [30.0]  # 10 before the read and 20 after it


COMMUNICATION = traced(
    "0 1 0 151",
    """0 1 1 runtime cudaLaunchKernel      0  1   1 -
       0 1 1 runtime cudaLaunchKernel      2  1   2 -
       0 1 1 runtime cudaDeviceSynchronize 10 141 3 -""",
    """0 0 7  compute       matmul         5   100 1
       0 0 20 communication ncclAllReduce 110 40  2""",
)


def test_communication_follows_the_compute_op_launched_before_it() -> None:
    graph = graph_of(COMMUNICATION)
    halved = scale(graph, Selector("compute"), 0.5)

    assert graph.edges.to_numpy().tolist() == [[0, 1, 5.0]]
    assert graph.unexplained_share == 0.0
    assert replayed(graph) == [151.0]
    assert replayed(halved) == [101.0]  # matmul 5-55, 5 later the all-reduce, 60-100, tail 1


@pytest.mark.parametrize(
    ("second_start", "edges"),
    [
        (310, 2),  # 5 after the other stream's kernel in both steps
        (340, 0),  # 35 after it in the second step
    ],
)
def test_a_long_lag_is_an_edge_only_if_it_is_one_in_every_step(second_start: int, edges: int) -> None:
    run = traced(
        """0 1 0   200
           0 2 200 200""",
        """0 1 1 runtime cudaLaunchKernel 0   1 1 -
           0 1 1 runtime cudaLaunchKernel 2   1 2 -
           0 1 1 runtime cudaLaunchKernel 200 1 3 -
           0 1 1 runtime cudaLaunchKernel 202 1 4 -
           0 1 1 runtime cudaLaunchKernel 380 1 5 -""",
        f"""0 0 7  compute one  5   100 1
            0 0 20 compute two  110 40  2
            0 0 7  compute one  205 100 3
            0 0 20 compute two  {second_start} 40 4
            0 0 7  compute last 385 10  5""",
    )

    answer = build_timeline(run, 0, run.steps)

    if edges:
        assert isinstance(answer, Timeline)
        assert len(answer.edges) == edges
    else:
        assert isinstance(answer, Unknown)  # (108 + 138) of 400 us
        assert "61.5%" in answer.reason


def test_an_order_that_one_step_contradicts_is_no_edge() -> None:
    run = traced(
        """0 1 0   100
           0 2 100 100""",
        """0 1 1 runtime cudaLaunchKernel 0   1 1 -
           0 1 1 runtime cudaLaunchKernel 2   1 2 -
           0 1 1 runtime cudaLaunchKernel 100 1 3 -
           0 1 1 runtime cudaLaunchKernel 102 1 4 -""",
        """0 0 7  compute       matmul        5   10 1
           0 0 20 communication ncclAllReduce 16  10 2
           0 0 7  compute       matmul        105 30 3
           0 0 20 communication ncclAllReduce 110 10 4""",
    )

    graph = graph_of(run)

    # the second all-reduce starts before matmul ends, so none waits for it; the second matmul may wait for the first all-reduce
    assert graph.edges[["source", "target"]].to_numpy().tolist() == [[1, 2]]


def test_a_sync_of_a_known_stream_does_not_wait_for_the_others() -> None:
    run = traced(
        "0 1 0 60",
        """0 1 1 runtime         cudaLaunchKernel        0   1  1 -
           0 1 1 runtime         cudaLaunchKernel        2   1  2 -
           0 1 1 runtime         cudaStreamSynchronize   10  41 3 -
           0 1 1 synchronization "Stream Synchronize"    10  41 3 7""",
        """0 0 7  compute short 5 45  1
           0 0 20 compute long  8 100 2""",
    )
    graph = graph_of(run)

    assert [block.streams for block in graph.blocks] == [(0,)]
    assert replayed(scale(graph, Selector("compute", "short"), 0.2)) == [24.0]  # 5-14, tail 1, then 9 more of host


def test_ops_of_one_graph_launch_keep_their_offsets() -> None:
    run = traced(
        "0 1 0 120",
        """0 1 1 runtime cudaLaunchKernel      0  1  1 -
           0 1 1 runtime cudaGraphLaunch       5  1  2 -
           0 1 1 runtime cudaDeviceSynchronize 10 91 3 -""",
        """0 0 7 compute first  5  40 1
           0 0 7 compute inner  50 20 2
           0 0 7 compute inner  75 25 2""",
    )
    graph = graph_of(run)

    assert replayed(graph) == [120.0]
    assert replayed(scale(graph, Selector("compute", "first"), 0.5)) == [100.0]  # all of the graph 20 earlier


def test_a_backward_thread_continues_the_line_of_the_main_thread() -> None:
    run = traced(
        "0 1 0 60",
        """0 1 1 runtime cudaLaunchKernel      0  5 1 -
           0 1 2 runtime cudaLaunchKernel      10 5 2 -
           0 1 1 runtime cudaDeviceSynchronize 20 30 3 -""",
        """0 0 7 compute forward  6  10 1
           0 0 7 compute backward 20 29 2""",
    )

    assert replayed(graph_of(run)) == [60.0]


REFUSED = {
    "device ops alone": (
        traced("0 1 0 9", "0 1 1 operator aten::mm 0 1 - -", "0 0 7 compute mm 1 2 1"),
        "100% of the 1 device ops",
    ),
    "host ops alone": (traced("0 1 0 9", "0 1 1 runtime cudaLaunchKernel 0 1 1 -", ""), "lacks device ops"),
    "no steps": (
        traced("0 1 0 9", "0 1 1 runtime cudaLaunchKernel 0 1 1 -", "0 0 7 compute mm 1 2 1"),
        "lacks device ops, host ops or steps",
    ),
    "kernels from before the first launch": (
        traced("0 1 0 9", "0 1 1 runtime cudaLaunchKernel 3 1 2 -", "0 0 7 compute mm 1 2 1\n0 0 7 compute mm 5 2 2"),
        "50% of the 2 device ops",
    ),
    "records of syncs are no launches": (
        traced("0 1 0 9", '0 1 1 synchronization "Stream Wait Event" 0 1 1 7', "0 0 7 compute mm 1 2 1"),
        "100% of the 1 device ops",
    ),
    "kernels that start before their launch": (
        traced("0 1 0 9", "0 1 1 runtime cudaLaunchKernel 3 1 2 -", "0 0 7 compute mm 1 2 2"),
        "the clocks of host and device disagree",
    ),
    "two threads that launch at once": (
        traced(
            "0 1 0 20",
            "0 1 1 runtime cudaLaunchKernel 0 5 1 -\n0 1 2 runtime cudaLaunchKernel 2 5 2 -",
            "0 0 7 compute mm 5 2 1\n0 0 7 compute mm 8 2 2",
        ),
        "two host threads launch at once",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_half_a_graph_gives_no_number(case: str) -> None:
    run, reason = REFUSED[case]
    steps = run.steps.iloc[:0] if case == "no steps" else run.steps

    answer = build_timeline(run, 0, steps)

    assert isinstance(answer, Unknown)
    assert reason in answer.reason
    assert answer.needs


REPLAYED = (
    "kineto/resnet50_pair_A/before_num_workers_0",
    "kineto/resnet50_pair_A/after_num_workers_4",
    "kineto/resnet50_pair_C/before_num_workers_0",
    "kineto/resnet50_pair_C/after_num_workers_4",
    "hta/ns_resolution",
    "hta/df_index_resolver",
    "tracelens/mi300x_flux_pair/before_aiter",
)


@pytest.mark.corpus
@pytest.mark.parametrize("folder", REPLAYED)
def test_recorded_steps_are_replayed_within_half_a_percent(folder: str, corpus: Path) -> None:
    run = read_kineto(corpus / "traces" / folder)
    graph = build_timeline(run, run.ranks[0], steady_steps(run))
    assert isinstance(graph, Timeline)
    waits = [
        [block.end_us - block.start_us for block in graph.blocks if block.kind == "loader" and low <= block.start_us < high]
        or [0.0]
        for low, high in zip(graph.edges_us[:-1], graph.edges_us[1:], strict=True)
    ]

    steps = replayed(graph, *(wait for step in waits for wait in step))

    assert np.abs(np.array(steps) / np.diff(graph.edges_us) - 1).max() < 0.005
    assert graph.unexplained_share < 0.001
