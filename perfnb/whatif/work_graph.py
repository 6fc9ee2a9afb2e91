"""What each device op and each wait of the host came after, on any trace: the graph whose longest path is the step."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
import pandas as pd

from perfnb.launches import NOT_LAUNCHED, launch_positions
from perfnb.run import Run
from perfnb.whatif.blocking_calls import SYNC_PATTERN
from perfnb.whatif.host_lines import Bools, Floats, HostLine, Integers, engine_threads, thread_numbers, work_lines
from perfnb.whatif.inferred_edges import LONG_LAG_FACTOR, SHORTEST_LONG_LAG_US, SOURCE_WINDOW_US

NONE: Final = -1
LAUNCH, QUEUE, DEPENDENCY, UNKNOWN = range(4)
"""What the start of a device op came after: its launch call, the op before it in its stream, an op of another stream; or
nothing that the trace tells."""

_FALLBACK_LAG_US: Final = 5.0  # detectors contract, section 1.3: where no op of the trace met an idle stream
_STILL_RUNNING_US: Final = 5.0  # as in blocking_calls: work that outlives a call by more was not what it waited for
_WHOLE_DEVICE: Final = "DeviceSynchronize"
_CALL: Final = re.compile(SYNC_PATTERN)


@dataclass(frozen=True, slots=True, eq=False)
class DeviceWork:
    """Device ops of one rank by start; all arrays have one value per op.

    Attributes
    ----------
    label
        Row in `run.device_ops`.
    start_us, end_us
        As recorded.
    lane
        Number of the stream.
    before
        Op before it in its stream, `NONE` for the first.
    call_us, call_end_us, thread
        Its launch call, NaN and `NONE` where none was recorded.
    source
        Op of another stream that it waited for, `NONE` where there is none.
    is_inferred
        Whether no record states that wait: the op ended just before, and nothing else explains the start.
    binding
        `LAUNCH`, `QUEUE`, `DEPENDENCY` or `UNKNOWN`.
    is_unexplained
        Whether it started later than its binding explains.
    call
        Row of the launch call in `run.host_ops`, `NONE` where none was recorded.
    usual_lag_us, least_lag_us
        Median and least time from a call to a start on an idle stream.
    """

    label: Integers
    start_us: Floats
    end_us: Floats
    lane: Integers
    before: Integers
    call_us: Floats
    call_end_us: Floats
    thread: Integers
    source: Integers
    is_inferred: Bools
    binding: Integers
    is_unexplained: Bools
    call: Integers
    usual_lag_us: float
    least_lag_us: float


class Turn(NamedTuple):
    """A moment at which a host thread went on because of something else than itself.

    Attributes
    ----------
    time_us
        When it went on.
    since_us
        When it began to wait: its own work until then is what the turn waits for too.
    source
        Device op (an end), or thread (a moment `source_us`) that it had to wait for.
    from_device
        Which of the two.
    source_us
        When that was done.
    """

    time_us: float
    since_us: float
    source: int
    from_device: bool
    source_us: float


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
    turns = _handovers(lines, main, high)
    for thread, turn in [*_synchronizations(one, work, threads, low, high), *_blocking_copies(one, work, low, high)]:
        if thread in turns:
            turns[thread].append(turn)
    in_order = {thread: _in_turn(found) for thread, found in turns.items()}
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
    pageable = _matching(rows["name"], "HtoD") & rows["kind"].eq("copy").to_numpy()
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


def _handovers(lines: dict[int, HostLine], main: int, high: float) -> dict[int, list[Turn]]:
    """Moments at which a thread began to work just after another one had done so, having had nothing to do itself.

    So the main thread follows the engine's thread after the backward pass, and that one follows the main thread into it.
    """
    turns: dict[int, list[Turn]] = {}
    for thread, line in lines.items():
        at = np.append(line.spans.start, high) if thread == main else line.spans.start
        since = np.concatenate([[-np.inf], line.spans.end])[: len(at)]
        latest, whose = since.copy(), np.full(len(at), thread)
        for other, theirs in lines.items():
            if other == thread or not len(theirs.spans):
                continue
            index = np.searchsorted(theirs.spans.end, at, side="right") - 1
            ended = np.where(index >= 0, theirs.spans.end[np.maximum(index, 0)], -np.inf)
            whose = np.where(ended > latest, other, whose)
            latest = np.maximum(ended, latest)
        turns[thread] = [
            Turn(float(at[row]), float(since[row]), int(whose[row]), from_device=False, source_us=float(latest[row]))
            for row in np.flatnonzero(whose != thread)
        ]
    return turns


def _synchronizations(one: Run, work: DeviceWork, threads: Integers, low: float, high: float) -> list[tuple[int, Turn]]:
    """Calls that waited for a stream, an event or the device, and the op that they waited for."""
    host = one.host_ops
    rows = np.flatnonzero(
        _matching(host["name"], _CALL) & host["category"].eq("runtime").to_numpy() & host["start_us"].between(low, high).to_numpy()
    )
    if not len(rows) or not len(work.label):
        return []
    start, length = host["start_us"].to_numpy()[rows], host["duration_us"].to_numpy()[rows]
    until, stream = _awaited(host, rows, start)
    streams = one.device_ops["stream"].reindex(work.label).fillna(NONE).to_numpy(dtype=np.int64)
    best = np.full(len(rows), NONE, dtype=np.int64)
    best_end = np.full(len(rows), -np.inf)
    for lane in np.unique(work.lane):
        own = np.flatnonzero(work.lane == lane)
        launched = pd.Series(work.call_us[own]).ffill().fillna(-np.inf).to_numpy()  # one without a launch follows its stream
        order = np.argsort(launched, kind="stable")
        own, launched = own[order], launched[order]
        index = np.searchsorted(launched, until, side="left") - 1
        op = own[np.maximum(index, 0)]
        ended = work.end_us[op]
        fits = (index >= 0) & ((stream == NONE) | (stream == streams[own[0]])) & (ended <= start + length + _STILL_RUNNING_US)
        better = fits & (ended > best_end)
        best, best_end = np.where(better, op, best), np.where(better, ended, best_end)
    return [
        (
            int(threads[rows[call]]),
            Turn(
                float(start[call] + length[call]),
                float(start[call]),
                int(best[call]),
                from_device=True,
                source_us=float(min(best_end[call], start[call] + length[call])),
            ),
        )
        for call in np.flatnonzero((best != NONE) & (best_end > start) & (start + length <= high))
    ]


def _awaited(host: pd.DataFrame, rows: Integers, start: Floats) -> tuple[Floats, Integers]:
    """Of each call: work launched before which moment it awaits, and on which stream (`NONE`: on all)."""
    records = host[host["category"].eq("synchronization") & host["correlation"].notna()]
    until, stream = start.copy(), np.full(len(rows), NONE, dtype=np.int64)
    names = host["name"].iloc[rows].astype(object)
    of_call = host["correlation"].iloc[rows]
    recorded = records.drop_duplicates("correlation").set_index("correlation")
    calls = host[host["category"].eq("runtime") & host["correlation"].isin(recorded["waits_on_correlation"].dropna())]
    called_us = dict(zip(calls["correlation"], calls["start_us"], strict=True))
    for number, (name, correlation) in enumerate(zip(names, of_call, strict=True)):
        if correlation is pd.NA or correlation not in recorded.index or _WHOLE_DEVICE in str(name):
            continue
        own = recorded.loc[correlation]
        event, other, direct = own["waits_on_correlation"], own["waits_on_stream"], own["stream"]
        if other is not pd.NA:
            stream[number], until[number] = other, min(called_us.get(event, start[number]), start[number])
        elif direct is not pd.NA and direct >= 0:
            stream[number] = direct
    return until, stream


def _blocking_copies(one: Run, work: DeviceWork, low: float, high: float) -> list[tuple[int, Turn]]:
    """Copies that held the host: out of pageable memory, or to the host and over within the call."""
    rows = one.device_ops.loc[work.label]
    copy = rows["kind"].eq("copy").to_numpy() & (work.thread != NONE)
    inside = copy & (work.call_us >= low) & (work.call_end_us <= high)
    out = _matching(rows["name"], "HtoD") & (_matching(rows["name"], "Pageable") | (work.call_end_us > work.start_us))
    back = _matching(rows["name"], "DtoH") & (work.call_end_us >= work.end_us)
    held = inside & (out | back) & (np.minimum(work.end_us, work.call_end_us) > work.call_us)
    held &= work.start_us < work.call_end_us
    return [
        (
            int(work.thread[op]),
            Turn(
                float(work.call_end_us[op]),
                float(work.call_us[op]),
                int(op),
                from_device=True,
                source_us=float(min(work.end_us[op], work.call_end_us[op])),
            ),
        )
        for op in np.flatnonzero(held)
    ]


def _in_turn(turns: list[Turn]) -> list[Turn]:
    """The turns by time, without a wait that began before the last one was over: it lies inside that one."""
    kept: list[Turn] = []
    for turn in sorted(turns):
        if turn.from_device:
            while kept and kept[-1].from_device and kept[-1].since_us >= turn.since_us:
                kept.pop()
        kept.append(turn)
    return kept


def _matching(column: pd.Series, pattern: str | re.Pattern[str]) -> Bools:
    compiled = re.compile(pattern)
    answers = np.array([compiled.search(str(name)) is not None for name in column.cat.categories] + [False])
    return answers[column.cat.codes.to_numpy()]
