"""A timeline compiled for replay: host segments, and when device streams are done as lines in the host's slowness."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass
from typing import Final

import numpy as np

from perfnb.whatif.timeline import Floats, Timeline

Line = tuple[float, float]
"""Slope and intercept: a moment `slope x slowness + intercept` after the start of the segment."""

Row = tuple[int, tuple[Line, ...], tuple[tuple[int, float], ...]]
"""Slot, its lines, and (slot, delay) of the slots that it waits for: the slot's new time is the latest of all."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Host work between two waits: how long it takes unhindered, and what the device has done once all of it is launched."""

    length_us: float
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """The host goes on at max(now + least, latest of the slots + tail)."""

    least_us: float
    tail_us: float
    slots: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LoaderWait:
    """The host takes the next batch."""


LOADER: Final = LoaderWait()
Item = Segment | Wait | LoaderWait


@dataclass(frozen=True, slots=True)
class Program:
    """A timeline in the form that is replayed.

    Attributes
    ----------
    steps
        Of each step, what the host does in turn.
    initial_us
        Per slot (streams first), when its earlier work ends, counted from the start of the first step.
    """

    steps: tuple[tuple[Item, ...], ...]
    initial_us: tuple[float, ...]


def compile_timeline(graph: Timeline) -> Program:
    """The timeline, its host edits applied, as segments and waits.

    Everything that a segment launches is folded into a few lines per stream: the moment at which the stream is done is the
    latest of (start of the segment + slope x slowness + intercept) and of what it already had to do. Replay then costs the
    number of waits, not of device ops, whatever slows the host.
    """
    host = _HostTime(graph)
    targets = _Dependencies(graph, host)
    steps = []
    at = float(graph.edges_us[0])
    first_op = 0
    for low, high in zip(graph.edges_us[:-1], graph.edges_us[1:], strict=True):
        items: list[Item] = []
        at = max(at, float(low))
        for block in [*(block for block in graph.blocks if low <= block.start_us < high), None]:
            end = block.start_us if block else float(high)
            next_op = host.ops_until(end, closed=block is not None)
            items.append(Segment(max(host.time(end) - host.time(at), 0.0), targets.rows(first_op, next_op, host.time(at))))
            first_op = next_op
            if block is None:
                continue
            items.append(LOADER if block.kind == "loader" else Wait(block.least_us, block.tail_us, block.streams))
            at = block.end_us
        at = max(at, float(high))
        if LOADER not in items:
            items.insert(0, LOADER)  # takes a batch that costs nothing, so that steps are counted alike
        steps.append(tuple(item for item in items if item != Segment(0.0, ())))
    initial = [end - float(graph.edges_us[0]) for end in graph.earlier_end_us] + [-math.inf] * targets.registers
    return Program(tuple(steps), tuple(initial))


class _HostTime:
    """Moments of the host once its edits are applied, and its launches in turn."""

    def __init__(self, graph: Timeline) -> None:
        self.edits = graph.host_edits
        self.recorded_us = graph.ops["launch_us"].tolist()
        self.launch_us = self.times(graph.ops["launch_us"].to_numpy()).tolist()

    def times(self, recorded_us: Floats) -> Floats:
        moved = recorded_us.copy()
        for start, end, added in self.edits:
            moved += added * (np.clip((recorded_us - start) / (end - start), 0.0, 1.0) if end > start else recorded_us >= start)
        return moved

    def time(self, recorded_us: float) -> float:
        return float(self.times(np.array([recorded_us]))[0]) if self.edits else recorded_us

    def ops_until(self, recorded_us: float, *, closed: bool) -> int:
        """Number of ops launched before a moment, or at it too where the call at it is the block's own."""
        return bisect_right(self.recorded_us, recorded_us if closed else math.nextafter(recorded_us, -math.inf))


class _Dependencies:
    """Folds the ops of a segment into the rows of a program; keeps a register for each op that a later segment needs."""

    def __init__(self, graph: Timeline, host: _HostTime) -> None:
        ops = graph.ops
        self._launch_us = host.launch_us
        self._ops = list(
            zip(ops["stream"].tolist(), ops["lag_us"].tolist(), ops["gap_us"].tolist(), ops["duration_us"].tolist(), strict=True)
        )
        position = {label: number for number, label in enumerate(ops.index)}
        self._sources: dict[int, list[tuple[int, float]]] = defaultdict(list)
        for source, target, gap in zip(graph.edges["source"], graph.edges["target"], graph.edges["gap_us"], strict=True):
            if source in position and target in position:
                self._sources[position[target]].append((position[source], float(gap)))
        self._needed = {source for sources in self._sources.values() for source, _ in sources}
        self._streams = len(graph.earlier_end_us)
        self._register: dict[int, int] = {}

    @property
    def registers(self) -> int:
        return len(self._register)

    def rows(self, first: int, last: int, begin_us: float) -> tuple[Row, ...]:
        """What ops first..last-1, launched in a segment that begins at the given moment, make of each slot."""
        done: dict[int, _Moment] = {}
        seen: dict[int, _Moment] = {}
        for number in range(first, last):
            stream, lag, gap, duration = self._ops[number]
            moment = done.get(stream)
            if moment is None:
                moment = done[stream] = _Moment(stream)
            moment.delay(gap)
            if lag > -math.inf:
                moment.launched(self._launch_us[number] - begin_us, lag)
            for source, wait in self._sources.get(number, ()):
                if source in seen:
                    moment.join(seen[source], wait)
                elif source in self._register:
                    moment.after(self._register[source], wait)
            moment.delay(duration)
            if number in self._needed:
                seen[number] = moment.copy()
                self._register.setdefault(number, self._streams + len(self._register))
        rows = [moment.row(stream) for stream, moment in done.items()]
        return tuple(rows + [moment.row(self._register[number]) for number, moment in seen.items()])


class _Moment:
    """The latest of several lines and of several slots, each with a delay; `shift` delays all of them at once."""

    __slots__ = ("lines", "shift", "slots")

    def __init__(self, slot: int | None = None) -> None:
        self.lines: list[Line] = []
        self.slots: dict[int, float] = {} if slot is None else {slot: 0.0}
        self.shift = 0.0

    def delay(self, amount: float) -> None:
        if amount == -math.inf:
            self.lines, self.slots, self.shift = [], {}, 0.0
        else:
            self.shift += amount

    def launched(self, slope: float, intercept: float) -> None:
        """Not before slope x slowness + intercept; slopes come in rising order, so lines that no slowness makes the latest go."""
        lines, intercept = self.lines, intercept - self.shift
        if lines and slope < lines[-1][0]:
            self.lines = _upper_envelope([*lines, (slope, intercept)])
            return
        if lines and slope == lines[-1][0] and intercept <= lines[-1][1]:
            return
        _push(lines, (slope, intercept))

    def after(self, slot: int, amount: float) -> None:
        self.slots[slot] = max(self.slots.get(slot, -math.inf), amount - self.shift)

    def join(self, other: _Moment, amount: float) -> None:
        moved = other.shift + amount - self.shift
        self.lines = _upper_envelope([*self.lines, *((slope, intercept + moved) for slope, intercept in other.lines)])
        for slot, delay in other.slots.items():
            self.slots[slot] = max(self.slots.get(slot, -math.inf), delay + moved)

    def copy(self) -> _Moment:
        twin = _Moment()
        twin.lines, twin.slots, twin.shift = list(self.lines), dict(self.slots), self.shift
        return twin

    def row(self, slot: int) -> Row:
        lines = tuple((slope, intercept + self.shift) for slope, intercept in self.lines)
        return slot, lines, tuple((source, delay + self.shift) for source, delay in self.slots.items())


def _upper_envelope(lines: list[Line]) -> list[Line]:
    kept: list[Line] = []
    for line in sorted(lines):
        _push(kept, line)
    return kept


def _push(lines: list[Line], line: Line) -> None:
    """Append a line of no smaller slope to an upper envelope over slowness >= 0."""
    slope, intercept = line
    while lines and intercept >= lines[-1][1]:
        lines.pop()
    while len(lines) > 1:
        (first, low), (second, middle) = lines[-2:]
        if (low - intercept) * (second - first) > (low - middle) * (slope - first):
            break
        lines.pop()
    lines.append(line)
