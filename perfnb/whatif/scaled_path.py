"""How long a step would be at least, were some pieces of its work shorter: the longest path of the same graph, worked out anew."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.errors import PerfnbError
from perfnb.run import Run
from perfnb.whatif.critical_path import chosen_window, walked
from perfnb.whatif.host_lines import KIND_CODES, KINDS, Floats, Integers
from perfnb.whatif.work_graph import DEPENDENCY, LAUNCH, NONE, QUEUE, UNKNOWN, WorkGraph, work_graph

BOUND_COLUMNS: Final = ("kind", "time_us", "share", "least_us", "most_gain_us", "most_gain_share")
_KIND_OF_OP: Final = {"compute": "kernel", "communication": "communication", "copy": "copy", "memset": "copy"}
_KIND_OF_BINDING: Final = {LAUNCH: "launch", QUEUE: "queue", DEPENDENCY: "dependency", UNKNOWN: "unknown"}


def least_step_us(
    run: Run,
    *,
    kind: str | None = None,
    name: str | None = None,
    scale: float = 0.0,
    step: int | Literal["window"] | None = None,
    rank: int | None = None,
) -> float:
    """Least length of a step if the chosen work took `scale` times as long as recorded and all else stayed as it was.

    The whole graph of the step is worked out anew, also the chains that are not critical now. What was not binding in the
    recording counts as short as it can be (no gap between queued ops, the least launch lag of the trace), so this is a lower
    bound of the step, all else equal: no prediction, and no change of a program makes work vanish. `perfnb.predict` predicts.

    Parameters
    ----------
    run
        A run with host or device ops.
    kind
        One of `perfnb.whatif.host_lines.KINDS`; any by default.
    name
        Regular expression that the name of the row must hold; any by default. Gaps (launch, queue, dependency, unknown) have
        the name of the device op that they precede.
    scale
        0 to 1.
    step, rank
        As in `critical_path`.

    Returns
    -------
    float
        Microseconds; with scale 1 exactly the recorded length.

    Raises
    ------
    PerfnbError
        If neither kind nor name is given, the kind is not known, or scale is outside 0 to 1.
    """
    if (kind is None and name is None) or (kind is not None and kind not in KINDS):
        message = f"kind={kind!r} with name={name!r} chooses nothing: give a name, or a kind of {', '.join(KINDS)}"
        raise PerfnbError(message)
    if not 0.0 <= scale <= 1.0:
        message = f"scale={scale} is outside 0 to 1: work that takes longer is a question for perfnb.predict"
        raise PerfnbError(message)
    number, chosen, low, high = chosen_window(run, step, rank)
    graph = work_graph(run, chosen, low, high)
    return _Lengths(run, graph).longest(kind, name, scale, to_host=number is not pd.NA)


def critical_path_bounds(
    run: Run, scale: float = 0.0, step: int | Literal["window"] | None = None, rank: int | None = None
) -> pd.DataFrame:
    """For each kind of work the least length of a step if all of it took `scale` times as long, all else equal.

    Parameters
    ----------
    run, step, rank
        As in `critical_path`.
    scale
        0 to 1: 0 asks what would be left if that kind of work vanished.

    Returns
    -------
    pandas.DataFrame
        One row per kind on the critical path, most gain first: time_us and share (of the step) on the path, least_us (see
        `least_step_us`), most_gain_us and most_gain_share (what the step can lose at most). Gains do not add up.
    """
    if not 0.0 <= scale <= 1.0:
        message = f"scale={scale} is outside 0 to 1: work that takes longer is a question for perfnb.predict"
        raise PerfnbError(message)
    number, chosen, low, high = chosen_window(run, step, rank)
    graph = work_graph(run, chosen, low, high)
    lengths = _Lengths(run, graph)
    to_host = number is not pd.NA
    total = high - low
    rows = []
    for kind, time_us in _time_on_path(run, graph, to_host=to_host).items():
        least = lengths.longest(kind, None, scale, to_host=to_host)
        rows.append((kind, time_us, time_us / total, least, total - least, (total - least) / total))
    bounds = pd.DataFrame(rows, columns=list(BOUND_COLUMNS))
    ordered: pd.DataFrame = bounds.sort_values("most_gain_us", ascending=False, kind="stable", ignore_index=True)
    return ordered


def _time_on_path(run: Run, graph: WorkGraph, *, to_host: bool) -> dict[str, float]:
    from perfnb.whatif.critical_path import named

    path = named(run, graph, walked(graph, to_host=to_host))
    return {str(kind): float(time) for kind, time in path.groupby("kind", observed=True)["duration_us"].sum().items() if time > 0}


@dataclass(frozen=True, slots=True)
class _Tail:
    kind: str = "synchronization"


class _Lengths:
    """The graph with the lengths of its edges, ready to be worked out anew."""

    def __init__(self, run: Run, graph: WorkGraph) -> None:
        self.run, self.graph = run, graph
        rows = run.device_ops.loc[graph.work.label]
        self.op_kind = rows["kind"].astype(object).map(_KIND_OF_OP).fillna("kernel").to_numpy()
        self.op_name = rows["name"]
        self.gap_kind = np.array([_KIND_OF_BINDING[each] for each in range(4)], dtype=object)[graph.work.binding]

    def longest(self, kind: str | None, name: str | None, scale: float, *, to_host: bool) -> float:
        graph, work = self.graph, self.graph.work
        low = graph.low_us
        named = _named_like(self.op_name, name)
        op_factor = np.where((np.equal(self.op_kind, kind) | (kind is None)) & named, scale, 1.0)
        gap_factor = np.where((np.equal(self.gap_kind, kind) | (kind is None)) & named, scale, 1.0)
        tail_factor = scale if kind in (None, "synchronization") and name is None else 1.0
        lines = {thread: self._host_sums(thread, kind, name, scale) for thread in graph.lines}
        times = {thread: [turn.time_us for turn in turns] for thread, turns in graph.turns.items()}
        values: dict[int, list[float]] = {thread: [] for thread in graph.turns}

        def host_time(thread: int, at: float, until: int | None = None) -> float:
            """New time of a recorded moment of a thread, given its turns so far."""
            edges, sums = lines[thread]
            index = bisect_right(times[thread], at) if until is None else until
            index = min(index, len(values[thread]))
            since, value = (times[thread][index - 1], values[thread][index - 1]) if index else (low, low)
            return value + float(np.interp(at, edges, sums) - np.interp(max(since, low), edges, sums)) if at > low else at

        events = self._events()
        new_end = work.end_us.tolist()
        start_us, end_us, call_us = work.start_us.tolist(), work.end_us.tolist(), work.call_us.tolist()
        before, source, thread_of, binding = (each.tolist() for each in (work.before, work.source, work.thread, work.binding))
        op_factors, gap_factors, unexplained = op_factor.tolist(), gap_factor.tolist(), work.is_unexplained.tolist()
        for is_op, number, thread in events:
            if not is_op:
                turn = graph.turns[thread][number]
                since = max(turn.since_us, low)
                own = host_time(thread, since, number)
                if turn.from_device:
                    awaited = new_end[turn.source] + (turn.source_us - end_us[turn.source])
                    wait = (turn.time_us - turn.source_us) * tail_factor
                else:
                    awaited = host_time(turn.source, turn.source_us)
                    edges, sums = lines[thread]
                    wait = float(np.interp(turn.time_us, edges, sums) - np.interp(max(turn.source_us, low), edges, sums))
                if turn.source_us <= low:
                    awaited = turn.source_us
                    wait = turn.time_us - turn.source_us
                values[thread].append(max(own, awaited + wait))
                continue
            op, start = number, start_us[number]
            if start < low:
                new_end[op] = low + max(end_us[op] - low, 0.0) * op_factors[op] if end_us[op] > low else end_us[op]
                continue
            begin, bound, factor = -np.inf, binding[op], gap_factors[op]
            if thread_of[op] != NONE:
                call = call_us[op]
                lag = start - call if bound == LAUNCH else min(start - call, work.least_lag_us)
                if bound == LAUNCH:
                    unknown = max(lag - work.usual_lag_us, 0.0) if unexplained[op] else 0.0
                    lag = self._split(lag - unknown, unknown, kind, factor, named[op], scale)
                begin = host_time(thread_of[op], call) + lag
            if before[op] != NONE:
                ready = min(end_us[before[op]], start)
                gap = (start - ready) * factor if bound in (QUEUE, UNKNOWN) else 0.0
                begin = max(begin, new_end[before[op]] - (end_us[before[op]] - ready) + gap)
            elif bound in (QUEUE, UNKNOWN):
                begin = max(begin, low + (start - low) * factor)
            if source[op] != NONE:
                gap = (start - end_us[source[op]]) * factor if bound == DEPENDENCY else 0.0
                begin = max(begin, new_end[source[op]] + gap)
            new_end[op] = begin + (end_us[op] - start) * op_factors[op]
        ends = [host_time(thread, graph.high_us) for thread in ([graph.main] if to_host else graph.lines) if thread in lines]
        if not to_host or not ends:
            ends += new_end
        return max(ends) - low

    @staticmethod
    def _split(lag: float, unknown: float, kind: str | None, factor: float, is_named: bool, scale: float) -> float:
        """The lag of a launch, its unexplained part apart."""
        return lag * factor + unknown * (scale if kind in (None, "unknown") and is_named else 1.0)

    def _host_sums(self, thread: int, kind: str | None, name: str | None, scale: float) -> tuple[Floats, Floats]:
        line = self.graph.lines[thread]
        chosen = np.ones(len(line.row), dtype=bool) if kind is None else line.kind == KIND_CODES[kind]
        if name is not None:
            known = line.row != NONE
            fits = np.zeros(len(line.row), dtype=bool)
            fits[known] = _named_like(self.run.host_ops["name"].loc[line.row[known]], name)
            chosen = chosen & fits
        length = np.diff(line.edges_us) * np.where(chosen, scale, 1.0)
        return line.edges_us, np.concatenate([[0.0], np.cumsum(length)])

    def _events(self) -> list[tuple[bool, int, int]]:
        """Device ops and turns in the order in which they can be worked out: what an event waits for comes before it."""
        work = self.graph.work
        keys = [(float(start), 1, number, NONE) for number, start in enumerate(work.start_us)]
        keys += [
            (turn.time_us, 0, number, thread) for thread, turns in self.graph.turns.items() for number, turn in enumerate(turns)
        ]
        return [(bool(is_op), number, thread) for _, is_op, number, thread in sorted(keys)]


def _named_like(names: pd.Series, pattern: str | None) -> NDArray[np.bool_]:
    if pattern is None:
        return np.ones(len(names), dtype=bool)
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        message = f"name={pattern!r} is no regular expression: {error}; re.escape(...) makes one of any text"
        raise PerfnbError(message) from error
    answers = np.array([compiled.search(str(name)) is not None for name in names.cat.categories] + [False])
    found: NDArray[np.bool_] = answers[names.cat.codes.to_numpy()]
    return found
