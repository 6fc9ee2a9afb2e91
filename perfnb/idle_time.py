"""Why a device idled: the gaps of its busy time by what the launching host thread was doing."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.categories import matching
from perfnb.intervals import EMPTY, Intervals, clip, intersect, joined, subtract, union
from perfnb.read.kineto.classify import LOADER_PATTERN

CAUSES: Final = ("transfer", "dependency", "data", "sync", "launch", "python", "unattributed")
_FEWEST_LAUNCHES: Final = 20  # for a median latency
_FALLBACK_LATENCY_US: Final = 5.0
_LARGEST_LATENCY_US: Final = 50.0  # recorded traces have 5 to 40 us between a call and its start on an idle device
_BLOCKING: Final = r"Synchronize|(?i:memcpy)"  # cuda* and hip*: *Synchronize, and copies, which may wait for the device
_PAGEABLE: Final = r"HtoD.*Pageable"

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def idle_causes(host: pd.DataFrame, ops: pd.DataFrame, launched: pd.DataFrame, low: float, high: float) -> dict[str, Intervals]:
    """Idle time of one device in [low, high) by cause; the causes are disjoint and their union is the idle time.

    For a gap that op j ends, whose launch call is made by host thread h, in this order, each taking what is left:

    - transfer: h is inside a copy from pageable memory;
    - launch and dependency: the call began before the gap, so at most a usual launch latency is launch and the rest waits
      for another stream, device or rank;
    - data: h waits for the DataLoader;
    - sync: a blocking call of h covers the start of the gap, for as long as it held the host;
    - launch: h runs operators or runtime calls, or j is on its way to the device;
    - python: h is in no recorded operator;
    - unattributed: no launch of j was recorded, or no op follows.

    Parameters
    ----------
    host
        Host ops of the device's rank.
    ops
        Device ops of one device.
    launched
        `launches(run)`.
    low, high
        Window, in microseconds.

    Returns
    -------
    dict
        Cause to its intervals, for every cause in `CAUSES`.
    """
    gap_start, gap_end, ended_by = busy_gaps(ops, low, high)
    calls = launched.loc[ops.index[ended_by], ["call_start_us", "call_end_us", "process", "thread"]]
    call_start, call_end = (calls[name].to_numpy(dtype=float) for name in ("call_start_us", "call_end_us"))
    known = ~np.isnan(call_start)
    queued = known & (call_start < gap_start)
    late = known & ~queued
    pageable = matching(ops["name"].iloc[ended_by], _PAGEABLE)
    latency = _latency((gap_end - call_start)[late])
    transfer = union(*_where(pageable & known, np.maximum(call_start, gap_start), np.minimum(call_end, gap_end)))
    on_its_way = np.where(queued, np.maximum(gap_end - latency, gap_start), np.minimum(call_start, gap_end))
    causes = dict.fromkeys(CAUSES, EMPTY)
    causes["transfer"] = transfer
    causes["launch"] = subtract(union(*_where(known, on_its_way, gap_end)), transfer)
    causes["dependency"] = subtract(union(*_where(queued, gap_start, on_its_way)), transfer)
    causes["unattributed"] = joined(
        union(*_where(~known, gap_start, gap_end)), clip(union([_last_end(ops, low)], [high]), low, high)
    )
    caller, host_thread = _lanes(calls, host)
    for lane in np.unique(caller[late]):
        own = late & (caller == lane)
        found = _host_late(host.iloc[np.flatnonzero(host_thread == lane)], gap_start[own], np.minimum(call_start, gap_end)[own])
        for cause, spans in found.items():
            causes[cause] = joined(causes[cause], spans)
    return causes


def busy_gaps(ops: pd.DataFrame, low: float, high: float) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Start and end of each gap of a device's busy time in [low, high) that an op ends, and the position of that op in `ops`."""
    start = ops["start_us"].to_numpy()
    end = start + ops["duration_us"].to_numpy()
    order = np.argsort(start, kind="stable")
    start = start[order]
    reach = np.concatenate([[low], np.maximum(np.maximum.accumulate(end[order]), low)])[:-1]
    opens = (start > reach) & (reach < high)
    return reach[opens], start[opens], order[opens]


def _lanes(calls: pd.DataFrame, host: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number of the (process, thread) of each call and of each host op; the same number means the same thread."""
    caller, host_thread = np.zeros(len(calls), dtype=np.int64), np.zeros(len(host), dtype=np.int64)
    for name in ("process", "thread"):
        own, other = (frame[name].astype("category").cat for frame in (calls, host))
        to_own = np.append(own.categories.get_indexer(other.categories), -1)  # -1 both where missing and where calls lack it
        width = len(own.categories) + 1
        caller = caller * width + own.codes.to_numpy() + 1
        host_thread = host_thread * width + to_own[other.codes.to_numpy()] + 1
    return caller, host_thread


def _host_late(own: pd.DataFrame, gap_start: Floats, call_start: Floats) -> dict[str, Intervals]:
    """What a host thread did from the start of each gap to its launch call."""
    start = own["start_us"].to_numpy()
    end = start + own["duration_us"].to_numpy()
    in_loader = matching(own["name"], LOADER_PATTERN)
    is_call = own["category"].eq("runtime").to_numpy(dtype=bool)
    blocking = is_call & matching(own["name"], _BLOCKING)
    working = is_call | own["category"].eq("operator").to_numpy(dtype=bool)
    waited = union(gap_start, call_start)
    data = intersect(waited, union(start[in_loader], end[in_loader]))
    held_until = _reach(start[blocking], end[blocking], gap_start)
    sync = subtract(union(gap_start, np.minimum(held_until, call_start)), data)
    rest = subtract(subtract(waited, data), sync)
    launch = intersect(rest, union(start[working], end[working]))
    return {"data": data, "sync": sync, "launch": launch, "python": subtract(rest, launch)}


def _reach(start: Floats, end: Floats, time: Floats) -> Floats:
    """Latest end of the intervals that began by each of the given times; the time itself where none covers it."""
    if not len(start):
        return time
    order = np.argsort(start, kind="stable")
    ends = np.maximum.accumulate(end[order])
    index = np.searchsorted(start[order], time, side="right") - 1
    return np.where(index >= 0, np.maximum(ends[np.maximum(index, 0)], time), time)


def _where(chosen: Flags, start: Floats, end: Floats) -> tuple[Floats, Floats]:
    return start[chosen], end[chosen]


def _last_end(ops: pd.DataFrame, low: float) -> float:
    return float(max((ops["start_us"] + ops["duration_us"]).max(), low))


def _latency(call_to_start_us: Floats) -> float:
    """Median time from launch call to start over ops that met an idle device."""
    if len(call_to_start_us) < _FEWEST_LAUNCHES:
        return _FALLBACK_LATENCY_US
    return float(min(np.median(call_to_start_us), _LARGEST_LATENCY_US))
