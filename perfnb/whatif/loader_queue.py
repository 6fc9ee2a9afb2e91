"""The DataLoader as a discrete-event simulation: workers, their queues, the pinning thread and the training loop."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from typing import Any, Final

from perfnb.whatif.loader_terms import NEXT, Costs, Delivery, Phases
from perfnb.whatif.loader_uncrowded import uncrowded
from perfnb.whatif.shared_cores import IDLE, Actor, Phase, run_actors

Consumer = Sequence[Phases] | Callable[[], Actor]
"""Phases of the training loop per step, which repeat from the start; or what makes it as a generator."""

MEASURED_STEPS: Final = 64  # whatif contract, section 4
FIRST_MEASURED_STEP: Final = 8


def simulate(
    batches: Sequence[Phases],
    consumer: Consumer,
    *,
    workers: int,
    prefetch: int = 2,
    cores: float = math.inf,
    foreign: float = 0.0,
    in_order: bool = True,
    fork_us: float = 0.0,
    init_us: float = 0.0,
    get_us: float = 0.0,
    pin_us: float | None = None,
    threads: float = 1.0,
) -> Delivery:
    """When each batch reaches the training loop, under the rules of torch's DataLoader.

    Parameters
    ----------
    batches
        Phases of each batch, in the order of their indices: its samples, then collate and put.
    consumer
        The training loop.
    workers, prefetch
        `num_workers` and `prefetch_factor`.
    cores, foreign
        Cores that this rank may use, and threads of others that run on them all the time.
    in_order
        Whether batches are delivered in the order of their indices.
    fork_us, init_us
        CPU time of the loop to start one worker, and of the worker before its first batch.
    get_us, pin_us
        CPU time to take a batch from the queue; of the pinning thread per batch, None without that thread.
    threads
        Threads of a cpu phase of the loop (the intra-op pool of CPU training).

    Returns
    -------
    Delivery
        Times since the iterator was made.

    Examples
    --------
    Two workers of 40 us a batch feed a loop of 30 us: after the first batch nobody waits.

    >>> simulate([[("wait", 40)]] * 4, [[("wait", 30)]], workers=2).delivered_us
    [40.0, 70.0, 100.0, 130.0]
    """
    loop = _loop(consumer, len(batches))
    costs = Costs(fork_us, init_us, get_us, pin_us)
    if in_order and foreign + workers + (pin_us is not None) + threads <= cores:
        takes_us = [sum([amount for _, amount in batch]) for batch in batches]
        return uncrowded(takes_us, loop, workers=workers, prefetch=prefetch, costs=costs)
    loader = _Loader(batches, workers, prefetch, in_order=in_order, pinned=pin_us is not None)
    run_actors(loader.actors(loop, costs), loader.woken, cores=cores, foreign=foreign, threads=threads)
    return loader.found


def steady_spacings_us(
    batches: Sequence[Phases], consumer: Consumer, *, workers: int, prefetch: int = 2, measured: int = 0, **options: Any
) -> list[float]:
    """Spacing of the steps' ends once the start no longer shows, the batches recycled in their order.

    At least 64 are measured, rounded up to whole rounds of the batches so that each counts alike; the first is that of the
    first batch. `workers x prefetch` steps more are simulated, for without them the workers would idle at the end.

    Examples
    --------
    >>> steady_spacings_us([[("wait", 40)], [("wait", 80)]], [[("wait", 15)]], workers=0)[:4]
    [55.0, 95.0, 55.0, 95.0]
    """
    first, measured, steps = steady_window(len(batches), workers, prefetch, measured)
    recycled = [batches[number % len(batches)] for number in range(steps)]
    end_us = simulate(recycled, consumer, workers=workers, prefetch=prefetch, **options).end_us
    spacings = [end_us[number] - end_us[number - 1] for number in range(first, first + measured)]
    turn = -first % len(batches)
    return spacings[turn:] + spacings[:turn]


def steady_window(batches: int, workers: int, prefetch: int, measured: int = 0) -> tuple[int, int, int]:
    """The first measured step, how many are measured, and how many are simulated.

    Examples
    --------
    >>> steady_window(10, workers=2, prefetch=2)
    (8, 70, 82)
    """
    ahead = workers * prefetch
    first = max(FIRST_MEASURED_STEP, 2 * ahead)
    measured = measured or batches * math.ceil(MEASURED_STEPS / batches)
    return first, measured, first + measured + ahead


def steady_step_us(
    batches: Sequence[Phases], consumer: Consumer, *, workers: int, prefetch: int = 2, measured: int = 0, **options: Any
) -> float:
    """Mean spacing of the steps' ends once the start no longer shows.

    Examples
    --------
    >>> steady_step_us([[("wait", 40)]], [[("wait", 15)]], workers=2)
    20.0
    """
    spacings = steady_spacings_us(batches, consumer, workers=workers, prefetch=prefetch, measured=measured, **options)
    return math.fsum(spacings) / len(spacings)


def merged(batch: Phases) -> Phases:
    """The batch as one wait and one cpu phase: 10 times faster to simulate, the steady step differs by some .06 %.

    Examples
    --------
    >>> merged([("wait", 1.0), ("cpu", 2.0), ("wait", 3.0)])
    (('wait', 4.0), ('cpu', 2.0))
    """
    wait = sum(amount for kind, amount in batch if kind == "wait")
    cpu = sum(amount for kind, amount in batch if kind == "cpu")
    return tuple((kind, amount) for kind, amount in (("wait", wait), ("cpu", cpu)) if amount)


def _loop(consumer: Consumer, steps: int) -> Actor:
    if callable(consumer):
        yield from consumer()
        return
    for step in range(steps):
        yield NEXT
        for phase in consumer[step % len(consumer)]:  # noqa: UP028 - `yield from` would send the clock into a list
            yield phase


class _Loader:
    """The state that torch keeps in `_MultiProcessingDataLoaderIter`, and its actors (torch 2.13, utils/data/dataloader.py)."""

    def __init__(self, batches: Sequence[Phases], workers: int, prefetch: int, *, in_order: bool, pinned: bool) -> None:
        self.batches, self.workers, self.prefetch, self.in_order = batches, workers, prefetch, in_order
        self.main = workers + pinned
        self.woken: list[int] = []
        self.found = Delivery([], [], [])
        self._asleep = [False] * (self.main + 1)
        self._queues: list[deque[int]] = [deque() for _ in range(workers)]
        self._arrived: deque[int] = deque()
        self._ready: deque[int] = deque() if pinned else self._arrived
        self._worker_of: list[int] = []
        self._undelivered = [0] * workers
        self._turn = cycle(range(workers))
        self._stored: set[int] = set()

    def actors(self, loop: Actor, costs: Costs) -> list[Actor]:
        """Everybody who runs, the training loop last."""
        workers = [self.work(worker, costs.init_us) for worker in range(self.workers)]
        pinning = [] if costs.pin_us is None else [self.pin(costs.pin_us)]
        return [*workers, *pinning, self.train(loop, costs.fork_us, costs.get_us)]

    def work(self, worker: int, init_us: float) -> Actor:
        yield IDLE
        yield "cpu", init_us
        queue = self._queues[worker]
        while True:
            while not queue:
                yield self._sleep(worker)
            number = queue.popleft()
            for phase in self.batches[number]:  # noqa: UP028 - as in _loop
                yield phase
            self._arrived.append(number)
            self._wake(self.workers)  # the pinning thread where there is one, else the training loop

    def pin(self, pin_us: float) -> Actor:
        while True:
            while not self._arrived:
                yield self._sleep(self.workers)
            number = self._arrived.popleft()
            yield "cpu", pin_us
            self._ready.append(number)
            self._wake(self.main)

    def train(self, loop: Actor, fork_us: float, get_us: float) -> Actor:
        now = yield "until", 0.0
        for worker in range(self.workers):
            now = yield "cpu", fork_us
            self.woken.append(worker)
        for _ in range(self.workers * self.prefetch):
            self._put()
        phase = next(loop, IDLE)
        while phase is not IDLE:
            if phase is not NEXT:
                now = yield phase
            elif len(self.found.delivered_us) == len(self.batches):
                break
            else:
                asked = now
                for part in self._next_batch(get_us):
                    now = yield part
                self.found.delivered_us.append(now)
                self.found.wait_us.append(now - asked)
            try:
                phase = loop.send(now)
            except StopIteration:
                phase = IDLE
            if phase in (NEXT, IDLE) and len(self.found.end_us) < len(self.found.delivered_us):
                self.found.end_us.append(now)

    def _next_batch(self, get_us: float) -> Iterator[Phase]:
        wanted = len(self.found.delivered_us)
        if not self.workers:
            yield from self.batches[wanted]
            return
        number = wanted if wanted in self._stored else -1
        while number < 0:
            while not self._ready:
                yield self._sleep(self.main)
            arrived = self._ready.popleft()
            yield "cpu", get_us
            if arrived == wanted or not self.in_order:
                number = arrived
            else:
                self._stored.add(arrived)
        self._stored.discard(number)
        self._undelivered[self._worker_of[number]] -= 1
        self._put()

    def _put(self) -> None:
        index = len(self._worker_of)
        if index == len(self.batches):
            return
        if sum(self._undelivered) >= self.workers * self.prefetch:
            message = "more batches under way than workers x prefetch"
            raise AssertionError(message)
        if self.in_order:
            worker = index % self.workers
        else:
            cycled = (next(self._turn) for _ in range(self.workers))
            worker = next((candidate for candidate in cycled if self._undelivered[candidate] < self.prefetch), -1)
        if worker >= 0:
            self._worker_of.append(worker)
            self._undelivered[worker] += 1
            self._queues[worker].append(index)
            self._wake(worker)

    def _sleep(self, actor: int) -> Phase:
        self._asleep[actor] = True
        return IDLE

    def _wake(self, actor: int) -> None:
        if self._asleep[actor]:
            self._asleep[actor] = False
            self.woken.append(actor)
