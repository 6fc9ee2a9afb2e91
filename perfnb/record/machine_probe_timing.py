"""Repeated timing of one piece of work within a budget of time: median, spread and count."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

REPEATS: Final = 10  # whatif contract, section 7: median of 10 after 3 warm-ups
WARM_UPS: Final = 3
FEWEST: Final = 3
_INTERVAL: Final = (0.1, 0.5, 0.9)


@dataclass(frozen=True, slots=True)
class Constant:
    """A measured property of a machine: its median over repeats, their 10th and 90th percentile, and how many there were."""

    value: float
    low: float
    high: float
    n: int

    def named(self, name: str) -> dict[str, float]:
        """As entries of `Run.machine.constants`.

        Examples
        --------
        >>> Constant(2.0, 1.0, 3.0, 10).named("x")
        {'x': 2.0, 'x.low': 1.0, 'x.high': 3.0, 'x.n': 10.0}
        """
        return {name: self.value, f"{name}.low": self.low, f"{name}.high": self.high, f"{name}.n": float(self.n)}

    def rate_of(self, amount: float) -> Constant:
        """The amount per time, where this is a time: its low end is the amount over the longest."""
        return Constant(amount / self.value, amount / self.high, amount / self.low, self.n)


def times_s(
    call: Callable[[], Any], longest_s: float, *, clock: Callable[[], float] = time.perf_counter, settle: Callable[[], Any] = int
) -> list[float]:
    """Seconds of each repeat of a call, ten after three that warm up; fewer of both where the time is short, never below three.

    Parameters
    ----------
    call
        The work.
    longest_s
        Seconds after which no further repeat is begun once there are three.
    clock
        Seconds of a monotonic clock.
    settle
        Waits until the work is done, for devices that work in the background.
    """
    begin = clock()
    for done in range(WARM_UPS):
        call()
        settle()
        if done == 0:
            first = clock() - begin
        if clock() - begin + first * FEWEST > longest_s:
            break
    found: list[float] = []
    while len(found) < REPEATS and (len(found) < FEWEST or clock() - begin < longest_s):
        start = clock()
        call()
        settle()
        found.append(clock() - start)
    return found


def constant(seconds: list[float], scale: float = 1e6) -> Constant:
    """A time in microseconds from repeats in seconds."""
    low, middle, high = (float(value) * scale for value in np.quantile(seconds, _INTERVAL))
    return Constant(middle, low, high, len(seconds))


def quotient(above: list[float], below: list[float]) -> Constant:
    """Medians of two times over one another, its ends from repeats side by side (what slows one slows its neighbour)."""
    pairs = np.array(above[: len(below)]) / np.array(below[: len(above)])
    low, _, high = (float(value) for value in np.quantile(pairs, _INTERVAL))
    middle = float(np.median(above) / np.median(below))
    return Constant(middle, min(low, middle), max(high, middle), len(pairs))


def alternated(
    calls: Mapping[str, Callable[[], Any]], longest_s: float, *, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each repeat of several calls taken in turn, so that a disturbance falls on all of them."""
    begin = clock()
    for call in calls.values():
        call()
    found: dict[str, list[float]] = {name: [] for name in calls}
    for done in range(REPEATS):
        if done >= FEWEST and clock() - begin > longest_s:
            break
        for name, call in calls.items():
            start = clock()
            call()
            found[name].append(clock() - start)
    return found
