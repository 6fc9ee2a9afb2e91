"""Simulations of the loader that differ in their times alone, side by side: one pass over the steps answers all draws."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from perfnb.whatif.cold_work import Cooling, cooling_loop, factors
from perfnb.whatif.loader_queue import Consumer, steady_spacings_us, steady_window
from perfnb.whatif.loader_terms import Phases
from perfnb.whatif.shared_cores import Actor

Floats = NDArray[np.float64]
T = TypeVar("T")

FEWEST_TOGETHER: Final = 8
"""Simulations from which one pass is made where taking a batch costs time: a choice, fewer are quicker by themselves."""


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """What the training loop does between its batches; it repeats from the start.

    Attributes
    ----------
    times_us
        Waiting and computing; shape (steps, 2).
    cooling
        What waiting for a batch costs the computing after it.
    recorded_us
        How long each step waited for its batch when it was recorded; without it there is no cooling.
    taking_us, share
        As in `cold_work.cooling_loop`.
    """

    times_us: Floats
    cooling: Cooling | None = None
    recorded_us: Floats | None = None
    taking_us: float = 0.0
    share: float = 1.0

    def consumer(self) -> Consumer:
        """The same for `loader_queue.simulate`."""
        steps = phases_of(self.times_us)
        if self.cooling is None or self.recorded_us is None:
            return steps
        return cooling_loop(steps, self.recorded_us.tolist(), self.cooling, taking_us=self.taking_us, share=self.share)


@dataclass(frozen=True, slots=True, eq=False)
class Loading:
    """One simulation of a loader that feeds a loop; see `loader_queue.simulate`.

    Attributes
    ----------
    batches_us
        Waiting and computing of each batch; shape (batches, 2).
    work
        The training loop: what it does in each step, or what makes it as a generator.
    workers, prefetch, cores, foreign, in_order, threads, get_us, pin_us
        As there.
    """

    batches_us: Floats
    work: Work | Callable[[], Actor]
    workers: int
    prefetch: int = 2
    cores: float = float("inf")
    foreign: float = 0.0
    in_order: bool = True
    threads: float = 1.0
    get_us: float = 0.0
    pin_us: float | None = None

    @property
    def is_uncrowded(self) -> bool:
        """Whether everybody has a core and batches come in order, so that each delivery follows from those before it."""
        return self.in_order and self.foreign + self.workers + (self.pin_us is not None) + self.threads <= self.cores

    def alone_us(self) -> Floats:
        """Its spacings, simulated by itself."""
        spacings = steady_spacings_us(
            phases_of(self.batches_us),
            self.work.consumer() if isinstance(self.work, Work) else self.work,
            workers=self.workers,
            prefetch=self.prefetch,
            cores=self.cores,
            foreign=self.foreign,
            in_order=self.in_order,
            threads=self.threads,
            get_us=self.get_us,
            pin_us=self.pin_us,
        )
        return np.array(spacings)


Simulation = Generator[Loading, Floats, T]
"""Yields what it wants simulated, is sent the spacings, returns its answer."""


def answered(simulations: Sequence[Simulation[T]]) -> list[T]:
    """What each of them returns; what they want at the same time is simulated side by side."""
    found: dict[int, T] = {}
    waiting = dict(enumerate(simulations))
    spacings: dict[int, Floats | None] = dict.fromkeys(waiting)
    while waiting:
        wanted: dict[int, Loading] = {}
        for number, simulation in list(waiting.items()):
            try:
                given = spacings[number]
                wanted[number] = next(simulation) if given is None else simulation.send(given)
            except StopIteration as ended:
                found[number] = ended.value
                del waiting[number]
        spacings = dict(zip(wanted, spacings_us(list(wanted.values())), strict=True))
    return [found[number] for number in range(len(simulations))]


def spacings_us(loadings: Sequence[Loading]) -> list[Floats]:
    """`loader_queue.steady_spacings_us` of each.

    Examples
    --------
    Batches of 40 and 80 us for a loop of 15 us that loads itself, and for one that two workers feed:

    >>> work = Work(np.array([[15.0, 0.0]]))
    >>> alike = [Loading(np.array([[40.0, 0.0], [80.0, 0.0]]), work, workers) for workers in (0, 2)]
    >>> [found[:4].tolist() for found in spacings_us(alike)]
    [[55.0, 95.0, 55.0, 95.0], [15.0, 65.0, 15.0, 65.0]]
    """
    groups: dict[tuple[object, ...], list[int]] = {}
    for number, each in enumerate(loadings):
        key: tuple[object, ...] = (number,)
        if isinstance(each.work, Work) and each.is_uncrowded:
            shape = (len(each.batches_us), len(each.work.times_us), each.workers, each.prefetch)
            key = (*shape, each.pin_us is None, each.work.cooling is None, each.work.recorded_us is None)
        groups.setdefault(key, []).append(number)
    found: dict[int, Floats] = {}
    for group in groups.values():
        members = [loadings[number] for number in group]
        together = _together(members)
        answers = [each.alone_us() for each in members] if together is None else list(together.T)
        found |= dict(zip(group, answers, strict=True))
    return [found[number] for number in range(len(loadings))]


def phases_of(times_us: Floats) -> list[Phases]:
    """Rows of waiting and computing as phases, without those of no length.

    Examples
    --------
    >>> phases_of(np.array([[2.0, 1.0], [0.0, 3.0]]))
    [(('wait', 2.0), ('cpu', 1.0)), (('cpu', 3.0),)]
    """
    waits, cpu = times_us.T.tolist()
    return [_phases(wait, busy) for wait, busy in zip(waits, cpu, strict=True)]


def _phases(wait_us: float, cpu_us: float) -> Phases:
    waiting = (("wait", wait_us),) if wait_us > 0.0 else ()
    return (*waiting, ("cpu", cpu_us)) if cpu_us > 0.0 else waiting


def _together(loadings: Sequence[Loading]) -> Floats | None:
    """Spacings of simulations that differ in their times alone, shape (steps, simulations); None where one by one is the way."""
    works = [each.work for each in loadings if isinstance(each.work, Work)]
    one = loadings[0]
    if len(works) < len(loadings) or not one.is_uncrowded:
        return None
    takes = np.stack([each.batches_us.sum(axis=1) for each in loadings], axis=1)
    is_free = not one.workers or (one.pin_us is None and not any(each.get_us for each in loadings))
    # where it matters which of two batches of one worker comes first, each has to take some time
    if not is_free and (len(works) < FEWEST_TOGETHER or not takes.all()):
        return None
    loop = _Loop(works)
    first, measured, steps = steady_window(len(takes), one.workers, one.prefetch)
    if one.workers:
        ends = _ends_us(takes, loop, _Queue(loadings, takes), steps)
        spacings = np.diff(ends[first - 1 : first + measured], axis=0)
    else:
        numbers = np.arange(first, first + measured)
        waited = takes[numbers % len(takes)]
        spacings = waited + loop.work_us(numbers, waited)
    return np.roll(spacings, -(-first % len(takes)), axis=0)  # the first is that of the first batch


def _ends_us(takes: Floats, loop: _Loop, queue: _Queue, steps: int) -> Floats:
    ends = np.empty((steps, takes.shape[1]))
    now = np.zeros(takes.shape[1])
    for number in range(queue.ahead):
        queue.put(number, now)
    for number in range(steps):
        taken = queue.taken(number, now)
        if number + queue.ahead < steps:
            queue.put(number + queue.ahead, taken)
        now = ends[number] = taken + loop.work_us(number, taken - now)
    return ends


class _Loop:
    """Work of several training loops, one column each."""

    def __init__(self, works: Sequence[Work]) -> None:
        self._waits = np.stack([each.times_us[:, 0] for each in works], axis=1)
        self._cpu = np.stack([each.times_us[:, 1] for each in works], axis=1)
        self._whole = self._waits + self._cpu
        coolings = [each.cooling for each in works if each.cooling is not None and each.recorded_us is not None]
        self._ratio = np.array([each.ratio for each in coolings])
        self._wait = np.array([each.wait_us for each in coolings])
        self._share = np.array([each.share for each in works])
        self._taking = np.array([each.taking_us for each in works])
        if coolings:
            recorded = np.stack([each.recorded_us for each in works if each.recorded_us is not None], axis=1)
            self._cpu = self._cpu / factors(recorded, self._ratio, self._wait)

    def work_us(self, step: int | NDArray[np.intp], waited: Floats) -> Floats:
        """Work of a step, or of several, after waiting for their batches."""
        place = step % len(self._whole)
        if not len(self._ratio):
            whole: Floats = self._whole[place]
            return whole
        scale = factors(self._share * (waited - self._taking), self._ratio, self._wait)
        found: Floats = self._waits[place] + self._cpu[place] * scale
        return found


class _Queue:
    """Batches on their way from workers to loops, one column per simulation: `loader_uncrowded` for all of them."""

    def __init__(self, loadings: Sequence[Loading], takes: Floats) -> None:
        one = loadings[0]
        self._workers, self._prefetch, self.ahead = one.workers, one.prefetch, one.workers * one.prefetch
        self._takes = takes
        count = len(loadings)
        self._columns = np.arange(count)
        self._free = np.zeros((one.workers, count))
        self._arrivals = np.full((self.ahead, count), np.inf)  # those of one worker side by side: the first of equals is its own
        self._get = np.array([each.get_us for each in loadings])
        self._pin = None if one.pin_us is None else np.array([each.pin_us for each in loadings], dtype=float)
        self._pinned = np.zeros(count)
        self._is_free = self._pin is None and not self._get.any()

    def put(self, number: int, now: Floats) -> None:
        """Hand a batch to its worker."""
        free = self._free[number % self._workers]
        np.maximum(free, now, out=free)
        free += self._takes[number % len(self._takes)]
        self._arrivals[self._place(number)] = free

    def taken(self, number: int, now: Floats) -> Floats:
        """When the loops that ask for a batch now have it."""
        wanted = self._place(number)
        if self._is_free:  # those that arrived before it cost nothing
            found: Floats = np.maximum(now, self._arrivals[wanted])
            return found
        open_ = np.isfinite(self._arrivals[wanted])
        while open_.any():
            place = self._arrivals.argmin(axis=0)
            ready = self._arrivals[place, self._columns]
            if self._pin is not None:
                ready = np.maximum(self._pinned, ready) + self._pin
                self._pinned = np.where(open_, ready, self._pinned)
            now = np.where(open_, np.maximum(now, ready) + self._get, now)
            self._arrivals[place[open_], self._columns[open_]] = np.inf
            open_ &= place != wanted
        return now

    def _place(self, number: int) -> int:
        return (number % self._workers) * self._prefetch + (number // self._workers) % self._prefetch
