"""How long a step would be at least, were some pieces of its work shorter: the longest path of its graph, worked out anew."""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.errors import PerfnbError
from perfnb.run import Run
from perfnb.whatif.critical_path import chosen_window
from perfnb.whatif.device_work import DEPENDENCY, LAUNCH, NONE, QUEUE, UNKNOWN
from perfnb.whatif.host_lines import KIND_CODES, KINDS, Floats
from perfnb.whatif.path_table import named
from perfnb.whatif.path_walk import walked
from perfnb.whatif.work_graph import WorkGraph, work_graph

BOUND_COLUMNS: Final = ("kind", "time_us", "share", "least_us", "most_gain_us", "most_gain_share")
_NEVER: Final = float("-inf")  # what bounds nothing
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
    path = named(run, graph, walked(graph, to_host=to_host))
    return {str(kind): float(time) for kind, time in path.groupby("kind", observed=True)["duration_us"].sum().items() if time > 0}


class _Lengths:
    """The graph with the lengths of its edges, ready to be worked out anew."""

    def __init__(self, run: Run, graph: WorkGraph) -> None:
        self.run, self.graph = run, graph
        rows = run.device_ops.loc[graph.work.label]
        self.op_kind: list[str] = rows["kind"].astype(object).map(_KIND_OF_OP).fillna("kernel").tolist()
        self.op_name = rows["name"]
        self.gap_kind = [_KIND_OF_BINDING[binding] for binding in graph.work.binding.tolist()]

    def longest(self, kind: str | None, name: str | None, scale: float, *, to_host: bool) -> float:
        """Length of the window when the pieces of a kind and name (None: all) take so much of their time."""
        return _Scaled(self, kind, name, scale).length_us(to_host=to_host)


class _Scaled:
    """The graph worked out anew with some pieces shorter: when each op ends, and each turn of a thread comes."""

    def __init__(self, lengths: _Lengths, kind: str | None, name: str | None, scale: float) -> None:
        graph = self.graph = lengths.graph
        work = self.work = graph.work
        named = _named_like(lengths.op_name, name).tolist()
        self.op_factor = _factors(lengths.op_kind, named, kind, scale)
        self.gap_factor = _factors(lengths.gap_kind, named, kind, scale)
        self.unknown_factor = [scale if kind in (None, "unknown") and is_named else 1.0 for is_named in named]
        self.tail_factor = scale if kind in (None, "synchronization") and name is None else 1.0
        self.lines = {thread: _host_sums(lengths, thread, kind, name, scale) for thread in graph.lines}
        self.times = {thread: [turn.time_us for turn in turns] for thread, turns in graph.turns.items()}
        self.values: dict[int, list[float]] = {thread: [] for thread in graph.turns}
        self.start_us: list[float] = work.start_us.tolist()
        self.end_us: list[float] = work.end_us.tolist()
        self.call_us: list[float] = work.call_us.tolist()
        self.before: list[int] = work.before.tolist()
        self.source: list[int] = work.source.tolist()
        self.thread: list[int] = work.thread.tolist()
        self.binding: list[int] = work.binding.tolist()
        self.unexplained: list[bool] = work.is_unexplained.tolist()
        self.new_end: list[float] = work.end_us.tolist()

    def length_us(self, *, to_host: bool) -> float:
        graph = self.graph
        for is_op, number, thread in _events(graph):
            if is_op:
                self.new_end[number] = self._op_end(number)
            else:
                self.values[thread].append(self._turn_time(thread, number))
        ends = [
            self._host_time(thread, graph.high_us)
            for thread in ([graph.main] if to_host else graph.lines)
            if thread in self.lines
        ]
        if not to_host or not ends:
            ends += self.new_end
        return max(ends) - graph.low_us

    def _host_time(self, thread: int, at: float, until: int | None = None) -> float:
        """New time of a recorded moment of a thread, given its turns so far."""
        low = self.graph.low_us
        if at <= low:
            return at
        index = bisect_right(self.times[thread], at) if until is None else until
        index = min(index, len(self.values[thread]))
        since, value = (self.times[thread][index - 1], self.values[thread][index - 1]) if index else (low, low)
        return value + self._own_time(thread, max(since, low), at)

    def _own_time(self, thread: int, since: float, at: float) -> float:
        """New length of what a thread did between two recorded moments."""
        edges, sums = self.lines[thread]
        return float(np.interp(at, edges, sums) - np.interp(since, edges, sums))

    def _turn_time(self, thread: int, number: int) -> float:
        """When a thread goes on after a wait: once its own work and what it waited for are done."""
        turn, low = self.graph.turns[thread][number], self.graph.low_us
        own = self._host_time(thread, max(turn.since_us, low), number)
        if turn.source_us <= low:
            return max(own, turn.time_us)
        if turn.from_device:
            awaited = self.new_end[turn.source] + (turn.source_us - self.end_us[turn.source])
            return max(own, awaited + (turn.time_us - turn.source_us) * self.tail_factor)
        return max(own, self._host_time(turn.source, turn.source_us) + self._own_time(thread, turn.source_us, turn.time_us))

    def _op_end(self, op: int) -> float:
        """When a device op ends: once its launch, its stream and its source allow, and its own length has passed."""
        start, end, low = self.start_us[op], self.end_us[op], self.graph.low_us
        if start < low:
            return low + max(end - low, 0.0) * self.op_factor[op] if end > low else end
        begin = max(self._launched(op), self._in_stream(op), self._after_source(op))
        return begin + (end - start) * self.op_factor[op]

    def _launched(self, op: int) -> float:
        if self.thread[op] == NONE:
            return _NEVER
        start, call, bound = self.start_us[op], self.call_us[op], self.binding[op]
        lag = start - call if bound == LAUNCH else min(start - call, self.work.least_lag_us)
        if bound == LAUNCH:
            unknown = max(lag - self.work.usual_lag_us, 0.0) if self.unexplained[op] else 0.0
            lag = (lag - unknown) * self.gap_factor[op] + unknown * self.unknown_factor[op]
        return self._host_time(self.thread[op], call) + lag

    def _in_stream(self, op: int) -> float:
        start, before = self.start_us[op], self.before[op]
        waits = self.binding[op] in (QUEUE, UNKNOWN)
        if before == NONE:
            low = self.graph.low_us
            return low + (start - low) * self.gap_factor[op] if waits else _NEVER
        ready = min(self.end_us[before], start)
        gap = (start - ready) * self.gap_factor[op] if waits else 0.0
        return self.new_end[before] - (self.end_us[before] - ready) + gap

    def _after_source(self, op: int) -> float:
        source = self.source[op]
        if source == NONE:
            return _NEVER
        gap = (self.start_us[op] - self.end_us[source]) * self.gap_factor[op] if self.binding[op] == DEPENDENCY else 0.0
        return self.new_end[source] + gap


def _factors(kinds: list[str], named: list[bool], kind: str | None, scale: float) -> list[float]:
    """Scale of each piece: that which was asked for where kind and name fit, else 1."""
    return [scale if is_named and kind in (None, own) else 1.0 for own, is_named in zip(kinds, named, strict=True)]


def _host_sums(lengths: _Lengths, thread: int, kind: str | None, name: str | None, scale: float) -> tuple[Floats, Floats]:
    """Edges of a thread's pieces, and the new time that has passed at each."""
    line = lengths.graph.lines[thread]
    chosen = np.ones(len(line.row), dtype=bool) if kind is None else line.kind == KIND_CODES[kind]
    if name is not None:
        known = line.row != NONE
        fits = np.zeros(len(line.row), dtype=bool)
        fits[known] = _named_like(lengths.run.host_ops["name"].loc[line.row[known]], name)
        chosen = chosen & fits
    length = np.diff(line.edges_us) * np.where(chosen, scale, 1.0)
    return line.edges_us, np.concatenate([[0.0], np.cumsum(length)])


def _events(graph: WorkGraph) -> list[tuple[bool, int, int]]:
    """Device ops and turns in the order in which they can be worked out: what an event waits for comes before it."""
    keys = [(float(start), 1, number, NONE) for number, start in enumerate(graph.work.start_us)]
    keys += [(turn.time_us, 0, number, thread) for thread, turns in graph.turns.items() for number, turn in enumerate(turns)]
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
