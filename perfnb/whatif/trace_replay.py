"""Replay of a compiled timeline: as the training loop of the simulated loader, or alone to see what it misses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle

from perfnb.whatif.loader_queue import steady_window
from perfnb.whatif.loader_terms import NEXT
from perfnb.whatif.segments import Program, Row, Segment, Wait
from perfnb.whatif.shared_cores import Actor


def training_loop(program: Program, order: Sequence[int], host_factor: float = 1.0) -> Callable[[], Actor]:
    """The traced job as the consumer of a simulated loader: one joint simulation, so that contention slows the host too.

    Parameters
    ----------
    program
        What the host does in each recorded step.
    order
        Steps to replay, again and again.
    host_factor
        How much slower the host's own work is than recorded.
    """

    def consumer() -> Actor:
        state = list(program.initial_us)
        now = yield "until", 0.0
        while True:
            for step in order:
                for item in program.steps[step]:
                    if isinstance(item, Segment):
                        begin, now = now, (yield "cpu", item.length_us * host_factor)
                        slowness = (now - begin) / item.length_us if item.length_us else host_factor
                        _launch(state, item.rows, begin, slowness)
                    elif isinstance(item, Wait):
                        now = yield "until", _resume(state, item, now)
                    else:
                        now = yield NEXT

    return consumer


def uncrowded_loop(program: Program, order: Sequence[int], host_factor: float = 1.0) -> Callable[[], Actor]:
    """What `training_loop` gives where there is a core for everybody: the same moments, one turn of the clock per batch.

    Parameters
    ----------
    program
        What the host does in each recorded step.
    order
        Steps to replay, again and again.
    host_factor
        How much slower the host's own work is than recorded.
    """

    def consumer() -> Actor:
        state = list(program.initial_us)
        now = yield "until", 0.0
        for step in cycle(order):
            for item in program.steps[step]:
                if isinstance(item, Segment):
                    _launch(state, item.rows, now, host_factor)
                    now += item.length_us * host_factor
                elif isinstance(item, Wait):
                    now = _resume(state, item, now)
                else:
                    yield "until", now
                    now = yield NEXT

    return consumer


def spacings_alone_us(program: Program, order: Sequence[int], loading_us: Sequence[float], host_factor: float) -> list[float]:
    """What `loader_queue.steady_spacings_us` gives of a loop that loads itself, on a core of its own, one batch in each step.

    The same moments without a simulated clock, since nobody else wants the core: several times as fast.

    Parameters
    ----------
    program
        What the host does in each recorded step.
    order
        Steps to replay, again and again.
    loading_us
        Time that each of them loads.
    host_factor
        How much slower the host's own work is than recorded.
    """
    count = len(order)
    first, measured, _ = steady_window(count, workers=0, prefetch=0)
    state, now, ends = list(program.initial_us), 0.0, [0.0]
    asked = 0
    for step in cycle(order):
        for item in program.steps[step]:
            if isinstance(item, Segment):
                _launch(state, item.rows, now, host_factor)
                now += item.length_us * host_factor
            elif isinstance(item, Wait):
                now = _resume(state, item, now)
            else:
                if asked:
                    ends.append(now)
                now += loading_us[asked % count]
                asked += 1
        if asked > first + measured:
            break
    spacings = [ends[number + 1] - ends[number] for number in range(first, first + measured)]
    turn = -first % count
    return spacings[turn:] + spacings[:turn]


def replayed_steps_us(program: Program, loader_us: Sequence[float]) -> list[float]:
    """Spacing of the steps when nothing is changed: the recorded waits for the loader, a core for everybody.

    Recorded lags and gaps make this exact by construction: it tests the graph and is no accuracy.
    """
    state = list(program.initial_us)
    waits: Iterator[float] = iter(loader_us)
    now, spacing = 0.0, []
    for items in program.steps:
        start = now
        for item in items:
            if isinstance(item, Segment):
                _launch(state, item.rows, now, 1.0)
                now += item.length_us
            elif isinstance(item, Wait):
                now = _resume(state, item, now)
            else:
                now += next(waits)
        spacing.append(now - start)
    return spacing


def _launch(state: list[float], rows: tuple[Row, ...], begin_us: float, slowness: float) -> None:
    times = []
    for slot, lines, sources in rows:
        latest = -math.inf
        for slope, intercept in lines:
            latest = max(latest, begin_us + slope * slowness + intercept)
        for source, delay in sources:
            latest = max(latest, state[source] + delay)
        times.append((slot, latest))
    for slot, latest in times:
        state[slot] = latest


def _resume(state: list[float], wait: Wait, now: float) -> float:
    awaited = max((state[slot] for slot in wait.slots), default=-math.inf)
    return max(now + wait.least_us, awaited + wait.tail_us)
