"""Edits of a timeline: device work made shorter or taken away, host time removed or added, copies that no longer block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.categories import matching
from perfnb.intervals import Intervals, contains
from perfnb.whatif.blocking_calls import Block
from perfnb.whatif.timeline import Timeline

ALL: Final = ""


@dataclass(frozen=True, slots=True, eq=False)
class Selector:
    """What an edit is about.

    Attributes
    ----------
    kind
        Kind of device op (compute, communication, copy, memset), `sync` for host calls that wait, `host` for the host's own
        time, with all that is called there.
    name
        Regular expression that the name must hold; empty for any.
    within
        Host time in which the launch or the call lies; None for all. Of `host`, the time itself.
    """

    kind: Literal["compute", "communication", "copy", "memset", "sync", "host"]
    name: str = ALL
    within: Intervals | None = None


def scale(graph: Timeline, selector: Selector, factor: float) -> Timeline:
    """The chosen device ops, or stretches of host time, at `factor` times their length."""
    if selector.kind == "host":
        return replace(graph, host_edits=(*graph.host_edits, *_stretched(selector.within, factor)))
    chosen = _ops(graph, selector)
    duration = graph.ops["duration_us"]
    return replace(graph, ops=graph.ops.assign(duration_us=duration.where(~chosen, duration * factor)))


def remove(graph: Timeline, selector: Selector) -> Timeline:
    """The timeline without the chosen device ops, waits, or stretches of host time and all that is called there.

    What comes later moves up; a later wait then waits for what a removed one has awaited.
    """
    if selector.kind == "sync":
        gone = [block for block in graph.blocks if block.kind != "loader" and _matches(block, selector)]
        cuts = tuple((block.start_us, block.end_us, block.start_us - block.end_us) for block in gone)
        kept = tuple(block for block in graph.blocks if block not in gone)
        return replace(graph, blocks=kept, host_edits=(*graph.host_edits, *cuts))
    if selector.kind != "host":
        return replace(graph, ops=graph.ops[~_ops(graph, selector)])
    spans = selector.within
    if spans is None or not len(spans):
        return graph
    kept = tuple(block for block in graph.blocks if block.kind == "loader" or not contains(spans, [block.start_us])[0])
    inside = contains(spans, graph.ops["launch_us"].to_numpy()) & graph.ops["launched"].to_numpy()
    return replace(graph, ops=graph.ops[~inside], blocks=kept, host_edits=(*graph.host_edits, *_stretched(spans, 0.0)))


def insert(graph: Timeline, at_us: Sequence[float], added_us: float) -> Timeline:
    """The timeline with more host time at each of the given recorded moments."""
    return replace(graph, host_edits=(*graph.host_edits, *((moment, moment, added_us) for moment in at_us)))


def unblock(graph: Timeline, selector: Selector, *, duration_us: float | None = None) -> Timeline:
    """The chosen copies as copies from pinned memory: the host goes on when the call returns, the stream is not drained.

    Parameters
    ----------
    graph
        The timeline.
    selector
        Copies; others stay as they are.
    duration_us
        Length of each copy out of pinned memory; as recorded by default.
    """
    chosen = _ops(graph, selector)
    ops = graph.ops
    called = {
        (float(call), int(stream)): float(before)
        for call, stream, before in zip(
            ops.loc[chosen, "launch_us"], ops.loc[chosen, "stream"], ops.loc[chosen, "before_us"], strict=True
        )
    }
    blocks = []
    for block in graph.blocks:
        key = (block.start_us, block.streams[0]) if block.kind == "copy" and block.streams else None
        if key in called:
            own = block.end_us - max(block.start_us, min(called[key], block.end_us))
            block = replace(block, least_us=own, tail_us=0.0, streams=())  # noqa: PLW2901 - the block as edited
        blocks.append(block)
    length = ops["duration_us"] if duration_us is None else ops["duration_us"].mask(chosen, duration_us)
    return replace(graph, ops=ops.assign(duration_us=length), blocks=tuple(blocks))


def _ops(graph: Timeline, selector: Selector) -> pd.Series[bool]:
    ops = graph.ops
    chosen = ops["kind"].eq(selector.kind) & matching(ops["name"], selector.name)
    return chosen & _within(selector, ops["launch_us"].to_numpy())


def _matches(block: Block, selector: Selector) -> bool:
    named = bool(pd.Series([block.name]).str.contains(selector.name).iloc[0])
    return named and bool(_within(selector, np.array([block.start_us]))[0])


def _within(selector: Selector, time_us: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.ones(len(time_us), dtype=bool) if selector.within is None else contains(selector.within, time_us)


def _stretched(spans: Intervals | None, factor: float) -> tuple[tuple[float, float, float], ...]:
    if spans is None:
        return ()
    return tuple(
        (float(start), float(end), float((factor - 1.0) * (end - start)))
        for start, end in zip(spans.start, spans.end, strict=True)
    )
