"""When a host thread went on because of something else than itself: another thread, a synchronization, a copy."""

from __future__ import annotations

import re
from typing import Final

import numpy as np
import pandas as pd

from perfnb.categories import matching
from perfnb.run import Run
from perfnb.whatif.blocking_calls import SYNC_PATTERN
from perfnb.whatif.device_work import NONE, DeviceWork, Turn
from perfnb.whatif.host_lines import Floats, HostLine, Integers

_NO_STREAM: Final = 2**32 - 1  # -1 as an unsigned number of 32 bits: CUPTI's word for no stream in particular
_STILL_RUNNING_US: Final = 5.0  # as in blocking_calls: work that outlives a call by more was not what it waited for
_WHOLE_DEVICE: Final = "DeviceSynchronize"
_CALL: Final = re.compile(SYNC_PATTERN)


def handovers(lines: dict[int, HostLine], main: int, high: float) -> dict[int, list[Turn]]:
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


def synchronizations(one: Run, work: DeviceWork, threads: Integers, low: float, high: float) -> list[tuple[int, Turn]]:
    """Calls that waited for a stream, an event or the device, and the op that they waited for."""
    host = one.host_ops
    rows = np.flatnonzero(
        matching(host["name"], _CALL) & host["category"].eq("runtime").to_numpy() & host["start_us"].between(low, high).to_numpy()
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
        elif direct is not pd.NA and 0 <= direct < _NO_STREAM:
            stream[number] = direct
    return until, stream


def copies_that_block(one: Run, work: DeviceWork, low: float, high: float) -> list[tuple[int, Turn]]:
    """Copies that held the host: out of pageable memory, or to the host and over within the call."""
    rows = one.device_ops.loc[work.label]
    copy = rows["kind"].eq("copy").to_numpy() & (work.thread != NONE)
    inside = copy & (work.call_us >= low) & (work.call_end_us <= high)
    out = matching(rows["name"], "HtoD") & (matching(rows["name"], "Pageable") | (work.call_end_us > work.start_us))
    back = matching(rows["name"], "DtoH") & (work.call_end_us >= work.end_us)
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


def in_turn(turns: list[Turn]) -> list[Turn]:
    """The turns by time, without a wait that began before the last one was over: it lies inside that one."""
    kept: list[Turn] = []
    for turn in sorted(turns):
        if turn.from_device:
            while kept and kept[-1].from_device and kept[-1].since_us >= turn.since_us:
                kept.pop()
        kept.append(turn)
    return kept
