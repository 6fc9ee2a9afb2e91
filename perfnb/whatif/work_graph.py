"""What each device op and each wait of the host came after, on any trace: the graph whose longest path is the step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pandas as pd

from perfnb.categories import matching
from perfnb.launches import NOT_LAUNCHED, launch_positions
from perfnb.run import Run
from perfnb.whatif.device_work import DEPENDENCY, LAUNCH, NONE, QUEUE, UNKNOWN, DeviceWork, Turn
from perfnb.whatif.host_lines import Bools, Floats, HostLine, Integers, engine_threads, thread_numbers, work_lines
from perfnb.whatif.host_turns import copies_that_block, handovers, in_turn, synchronizations
from perfnb.whatif.inferred_edges import LONG_LAG_FACTOR, SHORTEST_LONG_LAG_US, SOURCE_WINDOW_US

_FALLBACK_LAG_US: Final = 5.0  # detectors contract, section 1.3: where no op of the trace met an idle stream


@dataclass(frozen=True, slots=True, eq=False)
class WorkGraph:
    """Host threads, their turns and the device ops of one rank in a window."""

    low_us: float
    high_us: float
    main: int
    lines: dict[int, HostLine]
    turns: dict[int, list[Turn]]
    work: DeviceWork


def work_graph(run: Run, rank: int, low: float, high: float) -> WorkGraph:
    """The graph of one rank in [low, high)."""
    one = replace(
        run,
        host_ops=run.host_ops[run.host_ops["rank"] == rank],
        device_ops=run.device_ops[run.device_ops["rank"] == rank],
    )
    host, threads = one.host_ops, thread_numbers(one.host_ops)
    work = _device_work(one, threads, low, high)
    main = _main_thread(host, threads, work, low)
    launching = np.unique(work.thread[work.thread != NONE])
    lines = work_lines(host, [main, *launching, *engine_threads(host)], low, high)
    turns = handovers(lines, main, high)
    for thread, turn in [*synchronizations(one, work, threads, low, high), *copies_that_block(one, work, low, high)]:
        if thread in turns:
            turns[thread].append(turn)
    in_order = {thread: in_turn(found) for thread, found in turns.items()}
    return WorkGraph(low, high, main, lines, in_order, work)


def _device_work(one: Run, threads: Integers, low: float, high: float) -> DeviceWork:
    position = launch_positions(one)
    ops = one.device_ops
    start, end = ops["start_us"].to_numpy(), (ops["start_us"] + ops["duration_us"]).to_numpy()
    order = np.argsort(start, kind="stable")
    order = order[(start[order] < high) & (end[order] >= low - (high - low))]  # earlier ones only bound the first ops
    rows, start, end, position = ops.iloc[order], start[order], end[order], position[order]
    lane = rows.groupby(["device", "stream"], dropna=False, sort=False).ngroup().to_numpy().astype(np.int64)
    by_lane = np.argsort(lane, kind="stable")
    before = np.full(len(order), NONE, dtype=np.int64)
    same = lane[by_lane][1:] == lane[by_lane][:-1]
    before[by_lane[1:][same]] = by_lane[:-1][same]
    call, call_end, thread, call_row = _calls(one.host_ops, threads, position)
    queued_until = np.where(before != NONE, np.minimum(end[before], start), -np.inf)
    usable = call <= start  # a launch after the start is a clock that disagrees, and explains nothing
    pageable = matching(rows["name"], "HtoD") & rows["kind"].eq("copy").to_numpy()
    idle = usable & (queued_until <= call) & ~pageable
    lag = start - call
    usual = float(np.median(lag[idle])) if idle.any() else _FALLBACK_LAG_US
    gap = (start - queued_until)[np.isfinite(queued_until) & ~(queued_until <= call)]
    limit = max(SHORTEST_LONG_LAG_US, LONG_LAG_FACTOR * usual)
    long_gap = max(SHORTEST_LONG_LAG_US, LONG_LAG_FACTOR * float(np.median(gap))) if len(gap) else limit
    ready = np.fmax(np.where(usable, call, np.nan), queued_until)
    by_launch = usable & (ready == call)
    recorded = _recorded_waits(one, rows, lane, call, end)
    unexplained = ~pageable & np.where(by_launch, lag > limit, start - queued_until > long_gap)
    inferred = _ended_just_before(start, end, lane, ready, unexplained)
    source = np.where((recorded != NONE) & (end[recorded] <= start), recorded, NONE)
    is_inferred = (source == NONE) & (inferred != NONE)
    source = np.where(is_inferred, inferred, source)
    by_source = (source != NONE) & (end[source] > np.where(np.isfinite(ready), ready, -np.inf))
    binding = np.select([by_source, unexplained & ~by_launch, by_launch], [DEPENDENCY, UNKNOWN, LAUNCH], QUEUE)
    return DeviceWork(
        label=rows.index.to_numpy(),
        start_us=start,
        end_us=end,
        lane=lane,
        before=before,
        call_us=np.where(usable, call, np.nan),
        call_end_us=np.where(usable, call_end, np.nan),
        thread=np.where(usable, thread, NONE),
        source=source,
        is_inferred=is_inferred,
        binding=binding,
        is_unexplained=unexplained & (binding != DEPENDENCY),
        call=np.where(usable, call_row, NONE),
        usual_lag_us=usual,
        least_lag_us=float(lag[idle].min()) if idle.any() else 0.0,
    )


def _calls(host: pd.DataFrame, threads: Integers, position: Integers) -> tuple[Floats, Floats, Integers, Integers]:
    """Start, end, thread and row of the launch call of each op."""
    known = position != NOT_LAUNCHED
    if not len(host):
        absent = np.full(len(position), NONE, dtype=np.int64)
        return np.full(len(position), np.nan), np.full(len(position), np.nan), absent, absent
    start, length = host["start_us"].to_numpy()[position], host["duration_us"].to_numpy()[position]
    return (
        np.where(known, start, np.nan),
        np.where(known, start + length, np.nan),
        np.where(known, threads[position], NONE),
        np.where(known, host.index.to_numpy()[position], NONE),
    )


def _ended_just_before(start: Floats, end: Floats, lane: Integers, ready: Floats, chosen: Bools) -> Integers:
    """Op of another stream that ended last before each chosen start, within 15 us and after all else was ready."""
    found = np.full(len(start), NONE, dtype=np.int64)
    rows = np.flatnonzero(chosen)
    if not len(rows):
        return found
    by_end = np.argsort(end, kind="stable")
    latest = by_end[np.maximum(np.searchsorted(end[by_end], start[rows], side="right") - 1, 0)]
    after = np.maximum(start[rows] - SOURCE_WINDOW_US, np.where(np.isfinite(ready[rows]), ready[rows], -np.inf))
    fits = (lane[latest] != lane[rows]) & (end[latest] > after) & (end[latest] <= start[rows]) & (start[latest] < start[rows])
    found[rows[fits]] = latest[fits]
    return found


def _recorded_waits(one: Run, rows: pd.DataFrame, lane: Integers, call: Floats, end: Floats) -> Integers:
    """Op that each op waited for by a recorded stream wait: the last launched on the other stream before its event.

    A wait holds the next op that is launched on the waiting stream (CUDA runtime API, cudaStreamWaitEvent).
    """
    found = np.full(len(rows), NONE, dtype=np.int64)
    host = one.host_ops
    waits = host["category"].eq("synchronization") & host["waits_on_stream"].notna() & host["stream"].fillna(NONE).ge(0)
    if not waits.any():
        return found
    waits &= host["name"].eq("Stream Wait Event")
    calls = host[host["category"].eq("runtime") & host["correlation"].notna()]
    called_us = dict(zip(calls["correlation"], calls["start_us"], strict=True))
    by_stream = {
        int(stream): own[np.argsort(call[own], kind="stable")]
        for stream, own in _rows_of_streams(rows, np.flatnonzero(np.isfinite(call))).items()
    }
    records = host.loc[waits, ["stream", "waits_on_stream", "waits_on_correlation", "correlation", "start_us"]]
    for stream, other, event, correlation, at in records.itertuples(index=False):
        targets, sources = by_stream.get(stream), by_stream.get(other)
        if targets is None or sources is None or event is pd.NA or event not in called_us:
            continue
        after = int(np.searchsorted(call[targets], called_us.get(correlation, at), side="left"))
        until = int(np.searchsorted(call[sources], called_us[event], side="left"))
        if after < len(targets) and until:
            target, source = int(targets[after]), int(sources[until - 1])
            if lane[target] != lane[source] and (found[target] == NONE or end[source] > end[found[target]]):
                found[target] = source
    return found


def _rows_of_streams(rows: pd.DataFrame, chosen: Integers) -> dict[int, Integers]:
    stream = rows["stream"].fillna(NONE).to_numpy(dtype=np.int64)[chosen]
    return {int(each): chosen[stream == each] for each in np.unique(stream)}


def _main_thread(host: pd.DataFrame, threads: Integers, work: DeviceWork, low: float) -> int:
    """Thread of the step's annotation, else of most launches, else of most rows."""
    if not len(host):
        return NONE
    step = host["category"].eq("annotation").to_numpy() & (host["start_us"].to_numpy() == low)
    candidates = threads[step] if step.any() else work.thread[work.thread != NONE]
    values, counts = np.unique(candidates if len(candidates) else threads, return_counts=True)
    return int(values[counts.argmax()])
