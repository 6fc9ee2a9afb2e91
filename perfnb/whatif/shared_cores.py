"""Actors that wait and compute on a shared number of cores: the clock under every simulation of the host."""

from __future__ import annotations

import heapq
import math
from collections.abc import Generator, Sequence
from typing import Final

Phase = tuple[str, float]
"""`("cpu", us)`, `("wait", us)`, `("until", time_us)`, or `IDLE`: nothing to do until somebody wakes the actor."""

Actor = Generator[Phase, float, None]
"""Yields a phase, is sent the clock at its end."""

IDLE: Final[Phase] = ("idle", 0.0)


def run_actors(
    actors: Sequence[Actor], woken: list[int], *, cores: float = math.inf, foreign: float = 0.0, threads: float = 1.0
) -> None:
    """Advance the actors until the last of them returns; it is the one that goes last where several end together.

    Waits pass at the speed of the clock. All cpu phases advance at the same speed, `min(1, cores / threads that run)`, so
    one number, the work done per running phase, replaces a remainder for each of them.

    Parameters
    ----------
    actors
        The last one decides the end; the others never return. All are started at time 0, and it alone is not idle then.
    woken
        Filled by the actors with the numbers of idle actors that they wake; emptied here.
    cores, foreign
        Cores, and threads of others that are always running on them.
    threads
        Threads of a cpu phase of the last actor; the others have one.

    Examples
    --------
    >>> ends = []
    >>> def job():
    ...     ends.append((yield "cpu", 10.0))
    >>> run_actors([job()], [], cores=1, foreign=1)
    >>> ends
    [20.0]
    """
    last = number = len(actors) - 1
    timed: list[tuple[float, int]] = []  # (time, actor)
    busy: list[tuple[float, int]] = []  # (work done per phase when it ends, actor)
    now = done = 0.0
    running = foreign
    phase = IDLE
    for actor in actors:
        phase = next(actor)
    while True:
        kind, amount = phase
        if kind == "cpu":
            heapq.heappush(busy, (done + amount, number))
            running += threads if number == last else 1.0
        elif kind == "wait":
            heapq.heappush(timed, (now + amount, number))
        elif kind == "until":
            heapq.heappush(timed, (max(amount, now), number))
        while woken:
            heapq.heappush(timed, (now, woken.pop()))
        rate = 1.0 if running <= cores else cores / running
        at_busy = now + (busy[0][0] - done) / rate if busy else math.inf
        at_timed = timed[0][0] if timed else math.inf
        if at_timed < at_busy or (timed and at_timed == at_busy and timed[0][1] < busy[0][1]):
            done += (at_timed - now) * rate if busy else 0.0
            now, number = at_timed, heapq.heappop(timed)[1]
        else:
            done, now = busy[0][0], at_busy
            number = heapq.heappop(busy)[1]
            running -= threads if number == last else 1.0
        try:
            phase = actors[number].send(now)
        except StopIteration:
            return
