"""Dependencies across streams that a trace does not record, inferred from what holds in every step."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.categories import matching

SHORTEST_LONG_LAG_US: Final = 50.0  # whatif contract, section 5.2
LONG_LAG_FACTOR: Final = 5.0
SOURCE_WINDOW_US: Final = 15.0

Bools = NDArray[np.bool_]


class Inferred(NamedTuple):
    """Edges (source and target rows of ops), targets that an edge held back, and the lags that stay unexplained."""

    edges: list[tuple[int, int]]
    held: Bools
    unexplained_us: float


def inferred_edges(ops: pd.DataFrame, typical_lag_us: float) -> Inferred:
    """Edges between streams that no record states.

    A lag on an idle stream that is long, while another stream's op ended just before, is an edge from that op if it holds in
    every step. Communication waits for the last compute op launched before it, and the first compute op after a step's last
    communication waits for that, where the recording allows it in every step.

    Parameters
    ----------
    ops
        Device ops in the order of their launches, with step, stream, kind, name, launch_us, start_us, end_us, lag_us, is_idle.
    typical_lag_us
        Median lag on an idle stream.
    """
    held = np.zeros(len(ops), dtype=bool)
    long_lag = _long_lags(ops, typical_lag_us)
    lag = ops["lag_us"].to_numpy()
    if (ops["stream"] == ops["stream"].iloc[0]).all():
        return Inferred([], held, float(lag[long_lag].sum()))
    start, end, idle = (ops[name].to_numpy() for name in ("start_us", "end_us", "is_idle"))
    edges = set(_communication_edges(ops)) | set(_long_lag_edges(ops, long_lag))
    for source, target in edges:
        just_before = start[target] - end[source] <= SOURCE_WINDOW_US
        held[target] |= bool(just_before and (long_lag[target] or idle[target]))
    return Inferred(sorted(edges), held, float(lag[long_lag & ~held].sum()))


def _long_lags(ops: pd.DataFrame, typical_lag_us: float) -> Bools:
    limit = max(SHORTEST_LONG_LAG_US, LONG_LAG_FACTOR * typical_lag_us)
    pageable = matching(ops["name"], "HtoD") & ops["kind"].eq("copy")
    return (ops["is_idle"] & ops["launched"] & ~ops["in_graph"] & ~pageable & (ops["lag_us"] > limit)).to_numpy()


def _long_lag_edges(ops: pd.DataFrame, long_lag: Bools) -> list[tuple[int, int]]:
    """Edges to ops with a long lag from an op of another stream that ended just before, in every step."""
    keys = _keys(ops)
    rows_of: dict[tuple[int, str, int], dict[int, int]] = {}
    for row, (step, *_) in enumerate(keys):
        rows_of.setdefault(keys[row][1:], {})[step] = row
    stream, start, end = ops["stream"].to_numpy(), ops["start_us"].to_numpy(), ops["end_us"].to_numpy()
    by_end = np.argsort(end, kind="stable")
    ends = end[by_end]
    steps = ops["step"].nunique()
    edges: list[tuple[int, int]] = []
    tried: set[tuple[int, str, int]] = set()
    for target in np.flatnonzero(long_lag):
        key = keys[target][1:]
        if key in tried:
            continue
        tried.add(key)
        low, high = np.searchsorted(ends, [start[target] - SOURCE_WINDOW_US, start[target]], side="right")
        for source in by_end[low:high][::-1]:
            if stream[source] == stream[target] or source > target or keys[source][0] != keys[target][0]:
                continue
            pairs = _pairs(rows_of[keys[source][1:]], rows_of[key])
            if len(pairs) == steps and all(_holds(pair, start, end, long_lag) for pair in pairs):
                edges += pairs
                break
    return edges


def _holds(pair: tuple[int, int], start: NDArray[np.float64], end: NDArray[np.float64], long_lag: Bools) -> bool:
    source, target = pair
    wait = start[target] - end[source]
    return bool(source < target and wait >= 0.0 and (wait <= SOURCE_WINDOW_US or not long_lag[target]))


def _pairs(sources: dict[int, int], targets: dict[int, int]) -> list[tuple[int, int]]:
    return [(sources[step], target) for step, target in targets.items() if step in sources]


def _keys(ops: pd.DataFrame) -> list[tuple[int, int, str, int]]:
    """(step, stream, name, how many-th of that name in the step) of each op: the same op of different steps differs in step."""
    occurrence = ops.groupby(["step", "stream", "name"], observed=True).cumcount()
    return list(zip(ops["step"], ops["stream"], ops["name"].astype(str), occurrence, strict=True))


def _communication_edges(ops: pd.DataFrame) -> list[tuple[int, int]]:
    """Compute -> communication -> compute, kept only if no step contradicts it."""
    kind, stream, step = ops["kind"].astype(str).to_numpy(), ops["stream"].to_numpy(), ops["step"].to_numpy()
    start, end = ops["start_us"].to_numpy(), ops["end_us"].to_numpy()
    into, out_of = [], []
    last_compute, last_communication = -1, -1
    last_of_step = {int(step[row]): row for row in np.flatnonzero(kind == "communication")}
    for row in range(len(ops)):
        if kind[row] == "communication":
            if last_compute >= 0 and stream[last_compute] != stream[row]:
                into.append((last_compute, row))
            if last_of_step.get(int(step[row])) == row:
                last_communication = row
        elif kind[row] == "compute":
            if last_communication >= 0 and stream[last_communication] != stream[row]:
                out_of.append((last_communication, row))
            last_communication, last_compute = -1, row
    return [pair for pairs in (into, out_of) if all(end[source] <= start[target] for source, target in pairs) for pair in pairs]
