"""The compiled replay against one that goes op by op, and the traced job as the consumer of the simulated loader."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.whatif.blocking_calls import Block
from perfnb.whatif.loader_queue import simulate
from perfnb.whatif.segments import compile_timeline
from perfnb.whatif.timeline import Timeline
from perfnb.whatif.trace_replay import training_loop

STREAMS = 3
LENGTH_US = 100.0


@st.composite
def graphs(draw: st.DrawFn) -> Timeline:
    """One step of 100 us: ops on three streams, dependencies between them, syncs of some streams."""
    count = draw(st.integers(1, 12))
    times = sorted(draw(st.lists(st.integers(0, 99), min_size=count, max_size=count)))
    amount = st.integers(0, 30).map(float)
    ops = pd.DataFrame(
        {
            "stream": draw(st.lists(st.integers(0, STREAMS - 1), min_size=count, max_size=count)),
            "launch_us": [float(time) for time in times],
            "lag_us": [draw(st.one_of(amount, st.just(-math.inf))) for _ in range(count)],
            "gap_us": [draw(amount) for _ in range(count)],
            "duration_us": [draw(amount) for _ in range(count)],
        }
    )
    pairs = draw(st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1), amount), max_size=4))
    edges = [(source, target, gap) for source, target, gap in pairs if source < target]
    starts = sorted(draw(st.sets(st.sampled_from([15.5, 35.5, 55.5, 75.5]), max_size=3)))
    blocks = tuple(
        Block("sync", "sync", start, start + 10.0, draw(amount), draw(amount), tuple(draw(st.sets(st.integers(0, STREAMS - 1)))))
        for start in starts
    )
    return Timeline(
        ops=ops,
        edges=pd.DataFrame(edges, columns=["source", "target", "gap_us"]),
        blocks=blocks,
        edges_us=np.array([0.0, LENGTH_US]),
        earlier_end_us=np.array([draw(st.one_of(amount, st.just(-math.inf))) for _ in range(STREAMS)]),
        unexplained_share=0.0,
    )


def op_by_op(graph: Timeline, slowness: float) -> float:
    """End of the step, every op in turn."""
    now, at, first = 0.0, 0.0, 0
    stream_end = list(graph.earlier_end_us)
    op_end: dict[int, float] = {}
    for block in (*graph.blocks, None):
        until = block.start_us if block else LENGTH_US
        while first < len(graph.ops) and graph.ops["launch_us"][first] <= until:
            op = graph.ops.loc[first]
            stream = int(op["stream"])
            start = max(now + (op["launch_us"] - at) * slowness + op["lag_us"], stream_end[stream] + op["gap_us"])
            for source, gap in graph.edges.loc[graph.edges["target"] == first, ["source", "gap_us"]].to_numpy():
                start = max(start, op_end[int(source)] + gap)
            op_end[first] = stream_end[stream] = start + op["duration_us"]
            first += 1
        now += (until - at) * slowness
        if block:
            now = max(
                now + block.least_us, max((stream_end[stream] for stream in block.streams), default=-math.inf) + block.tail_us
            )
            at = block.end_us
    return now


@given(graphs(), st.sampled_from([0.5, 1.0, 1.25, 3.0]))
def test_a_compiled_step_ends_when_one_replayed_op_by_op_does(graph: Timeline, slowness: float) -> None:
    end = simulate([()], training_loop(compile_timeline(graph), [0], slowness), workers=0).end_us[0]

    assert end == pytest.approx(op_by_op(graph, slowness), abs=1e-6)


def host_alone(length_us: float) -> Timeline:
    loader = Block("loader", "DataLoader", 0.0, 0.0)
    nothing = pd.DataFrame({name: pd.Series(dtype=float) for name in ("stream", "launch_us", "lag_us", "gap_us", "duration_us")})
    no_edges = pd.DataFrame({"source": [], "target": [], "gap_us": []})
    return Timeline(nothing, no_edges, (loader,), np.array([0.0, length_us]), np.array([]), 0.0)


def test_a_worker_that_computes_slows_the_host_on_one_core() -> None:
    loop = training_loop(compile_timeline(host_alone(10.0)), [0])

    found = simulate([[("cpu", 10.0)], [("cpu", 30.0)]], loop, workers=1, prefetch=1, cores=1)

    # batch 0 is made alone until 10; then loop and batch 1 share the core: the loop needs 20, batch 1 has 20 left until 50
    assert found.delivered_us == [10.0, 50.0]
    assert found.end_us == [30.0, 60.0]


def test_the_host_factor_stretches_the_host_alone() -> None:
    loop = training_loop(compile_timeline(host_alone(10.0)), [0], 1.5)

    assert simulate([()], loop, workers=0).end_us == [15.0]
