"""The DataLoader where everybody has a core: nobody slows anybody, so that each delivery follows from those before it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from heapq import heappop, heappush
from typing import Final

from perfnb.whatif.loader_terms import Costs, Delivery
from perfnb.whatif.shared_cores import IDLE, Actor

Taking = Generator[float, float, None]
"""Is sent when the loop asks for its next batch, and yields when the loop has it."""

_FREE: Final = Costs()


def uncrowded(takes_us: Sequence[float], loop: Actor, *, workers: int, prefetch: int, costs: Costs = _FREE) -> Delivery:
    """What `loader_queue.simulate` gives where cores are never short and batches are delivered in order, without its events.

    Parameters
    ----------
    takes_us
        Time of each batch from its first sample to its put.
    loop
        The training loop, which yields `NEXT` to take a batch.
    workers, prefetch, costs
        As there.

    Examples
    --------
    >>> def loop():
    ...     for _ in range(4):
    ...         yield "next", 0.0
    ...         yield "wait", 30.0
    >>> uncrowded([40.0] * 4, loop(), workers=2, prefetch=2).delivered_us
    [40.0, 70.0, 100.0, 130.0]
    """
    found = Delivery([], [], [])
    delivered, end, waited = found
    now = workers * costs.fork_us
    taking = _taken(takes_us, workers, prefetch, costs) if workers else _read(takes_us)
    next(taking)
    phase = next(loop, IDLE)
    while phase is not IDLE:
        kind, amount = phase
        if kind in ("cpu", "wait"):
            now += amount
        elif kind == "until":
            now = max(now, amount)
        elif len(delivered) == len(takes_us):
            break
        else:
            asked, now = now, taking.send(now)
            delivered.append(now)
            waited.append(now - asked)
        try:
            phase = loop.send(now)
        except StopIteration:
            phase = IDLE
        if (phase is IDLE or phase[0] == "next") and len(end) < len(delivered):
            end.append(now)
    return found


def _read(takes_us: Sequence[float]) -> Taking:
    """Batches that the loop reads itself."""
    now = yield 0.0
    for takes in takes_us:
        now = yield now + takes


def _taken(takes_us: Sequence[float], workers: int, prefetch: int, costs: Costs) -> Taking:
    """Batches of workers: batch i is made by worker i modulo their number, after the batch that many places before was taken."""
    fork_us, init_us, get_us, pin_us = costs
    total, ahead = len(takes_us), workers * prefetch
    free = [fork_us * (worker + 1) + init_us for worker in range(workers)]
    arrivals: list[tuple[float, int, int]] = []  # (time, worker, batch): of those that are under way

    def put(number: int, now: float) -> None:
        worker = number % workers
        free[worker] = max(free[worker], now) + takes_us[number]
        heappush(arrivals, (free[worker], worker, number))

    for number in range(min(ahead, total)):
        put(number, workers * fork_us)
    stored: set[int] = set()
    ready = 0.0
    now = yield 0.0
    for wanted in range(total):
        number = wanted if wanted in stored else -1
        while number != wanted:  # what has arrived is taken in that order; nothing is put meanwhile
            arrived, _, number = heappop(arrivals)
            ready = arrived if pin_us is None else max(ready, arrived) + pin_us
            now = max(now, ready) + get_us
            stored.add(number)
        stored.discard(wanted)
        if wanted + ahead < total:
            put(wanted + ahead, now)
        now = yield now
