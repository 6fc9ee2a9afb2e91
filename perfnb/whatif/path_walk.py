"""The walk from the end of a step back to its start, along what each thing came after."""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from perfnb.whatif.device_work import DEPENDENCY, LAUNCH, NONE, UNKNOWN
from perfnb.whatif.host_lines import KIND_CODES
from perfnb.whatif.work_graph import WorkGraph

_WAIT, _LAUNCH, _QUEUE, _DEPENDENCY, _UNKNOWN, _OP = (
    KIND_CODES[kind] for kind in ("synchronization", "launch", "queue", "dependency", "unknown", "kernel")
)


class Piece(NamedTuple):
    """A stretch of the path: on a host thread (all that it did then), or one thing of a device op."""

    start_us: float
    end_us: float
    thread: int  # NONE for a device piece
    op: int
    kind: int  # of a host piece: NONE for what its rows are


def walked(graph: WorkGraph, *, to_host: bool) -> list[Piece]:
    """Pieces of the path, last one first; `to_host`: it ends on the main thread, as a step does, else with what ended last."""
    walk = _Walk(graph)
    work = graph.work
    last = int(work.end_us.argmax()) if len(work.end_us) else NONE
    if graph.main in graph.lines and (to_host or last == NONE or work.end_us[last] < graph.high_us):
        walk.on_host(graph.main, graph.high_us)
    else:
        walk.ended_by(last)
    while walk.time_us > graph.low_us:
        walk.go_on()
    return walk.pieces


class _Walk:
    """A walk backwards through the graph."""

    def __init__(self, graph: WorkGraph) -> None:
        self.graph = graph
        self.pieces: list[Piece] = []
        self.thread, self.op = NONE, NONE
        self.time_us = graph.high_us
        self._times = {thread: [turn.time_us for turn in turns] for thread, turns in graph.turns.items()}
        self._handed = False

    def on_host(self, thread: int, time_us: float, *, handed: bool = False) -> None:
        """The path goes on at a moment of a thread; `handed`: where that thread had just done its work."""
        self.thread, self.op, self.time_us, self._handed = thread, NONE, time_us, handed

    def ended_by(self, op: int) -> None:
        """The path ends with a device op; what follows it is not known."""
        self.thread, self.op = NONE, op
        self._add(float(self.graph.work.end_us[op]) if op != NONE else self.graph.low_us, _UNKNOWN)

    def on_device(self, op: int, time_us: float) -> None:
        self.thread, self.op, self.time_us = NONE, op, time_us

    def go_on(self) -> None:
        if self.op == NONE:
            self._host_step()
        else:
            self._device_step()

    def _host_step(self) -> None:
        graph, times = self.graph, self._times.get(self.thread, [])
        index = bisect_right(times, self.time_us)
        turn = None
        while index and turn is None:
            index -= 1
            candidate = graph.turns[self.thread][index]
            if not (self._handed and not candidate.from_device and candidate.time_us == self.time_us):
                turn = candidate
        if turn is None or turn.time_us <= graph.low_us or turn.source_us <= graph.low_us:
            self._add(graph.low_us, NONE)
        elif turn.from_device:
            self._add(turn.time_us, NONE)
            self._add(turn.source_us, _WAIT)
            self.on_device(turn.source, turn.source_us)
        else:
            self._add(turn.source_us, NONE)
            self.on_host(turn.source, turn.source_us, handed=True)

    def _device_step(self) -> None:
        graph, work, op = self.graph, self.graph.work, self.op
        start = float(work.start_us[op])
        self._add(start, _OP)
        if start <= graph.low_us:
            return
        binding, before = int(work.binding[op]), int(work.before[op])
        if binding == LAUNCH:
            call = float(work.call_us[op])
            if work.is_unexplained[op]:
                self._add(call + work.usual_lag_us, _UNKNOWN)
            self._add(call, _LAUNCH)
            self.on_host(int(work.thread[op]), call)
        elif binding == DEPENDENCY:
            source = int(work.source[op])
            self._add(float(work.end_us[source]), _DEPENDENCY)
            self.on_device(source, self.time_us)
        elif before != NONE:
            self._add(min(float(work.end_us[before]), start), _UNKNOWN if binding == UNKNOWN else _QUEUE)
            self.on_device(before, self.time_us)
        else:
            self._add(graph.low_us, _UNKNOWN)

    def _add(self, start_us: float, kind: int) -> None:
        start = max(start_us, self.graph.low_us)
        if start < self.time_us:
            self.pieces.append(Piece(start, self.time_us, self.thread, self.op, kind))
            self.time_us = start
