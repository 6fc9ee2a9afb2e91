"""The clocks of a recording: ranks on one clock, and what a thread's wall time was made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from perfnb import text
from perfnb.read.recorded_columns import Floats
from perfnb.record.clocks import NO_SCHEDSTAT

LARGEST_EXCESS_SHARE: Final = 0.05
"""Of a run's wall time: what CPU and run-queue time may be above it. 3 of 40 busy runs in a virtual machine were."""


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """What wall times were made of, row by row, in the unit of the wall times; the three sum to it where all are known.

    Attributes
    ----------
    cpu, runqueue, blocked
        Running; ready, but without a core; neither. NaN where unknown.
    reason
        Why run-queue and blocked time are unknown; "" where they are known.
    """

    cpu: Floats
    runqueue: Floats
    blocked: Floats
    reason: str


def split(wall: Floats, cpu: Floats, runqueue: Floats) -> Split:
    """What the wall times of one rank's rows, in order of time, were made of.

    Blocked time is what CPU and run-queue time leave. The kernel's counters are up to 4 ms late in a virtual machine, so that
    a row can have more run-queue time than its wall time and the ones before too little: what such a row lacks is taken from
    the blocked time of those before it. Sums over the run stay what was measured.

    Examples
    --------
    >>> found = split(np.array([10.0, 10.0]), np.array([2.0, 4.0]), np.array([0.0, 7.0]))
    >>> found.blocked.tolist(), found.runqueue.tolist()
    ([7.0, 0.0], [1.0, 6.0])
    """
    known = np.isfinite(wall) & np.isfinite(cpu)
    sampled = known & np.isfinite(runqueue)
    running = np.where(known, cpu, np.nan)
    waiting, blocked = np.full(len(wall), np.nan), np.full(len(wall), np.nan)
    unsampled = known & ~sampled
    running[unsampled] = wall[unsampled] - _off_cpu(wall[unsampled], cpu[unsampled])
    if not sampled.any():
        return Split(running, waiting, blocked, NO_SCHEDSTAT)
    spent, left = float(wall[sampled].sum()), float((wall - cpu - runqueue)[sampled].sum())
    off = _off_cpu(wall[sampled], cpu[sampled])
    running[sampled] = wall[sampled] - off
    if left < -LARGEST_EXCESS_SHARE * spent:
        excess = text.share(-left / spent) if spent else "all of it"
        return Split(
            running, waiting, blocked, f"CPU and run-queue time are above the wall time by {excess}: the counters are off"
        )
    still = np.zeros_like(off) if left < 0 else np.minimum(settled(off - runqueue[sampled]), off)
    blocked[sampled], waiting[sampled] = still, off - still
    return Split(running, waiting, blocked, "")


def settled(values: Floats) -> Floats:
    """Values of which none is negative: what one lacks is taken from those before it, the nearest first, and where they have
    too little from those after. Where the sum is not negative it is kept.

    The sum up to each row is lowered to the least that any later row leaves of it, so that it never falls.

    Examples
    --------
    >>> settled(np.array([5.0, 3.0, -4.0, 1.0])).tolist(), settled(np.array([-2.0, 3.0])).tolist()
    ([4.0, 0.0, 0.0, 1.0], [0.0, 1.0])
    """
    if not (values < 0).any():
        return values
    least_left = np.minimum.accumulate(np.cumsum(values)[::-1])[::-1]
    return np.diff(np.maximum(least_left, 0.0), prepend=0.0)


def _off_cpu(wall: Floats, cpu: Floats) -> Floats:
    """Wall time off the CPU: never negative, the sum as measured unless that is."""
    off = wall - cpu
    if not (off < 0).any():
        return off
    return settled(off) if off.sum() >= 0 else np.maximum(off, 0.0)


def common_clock(headers: Sequence[Mapping[str, Any]]) -> tuple[list[int], str]:
    """Nanoseconds to add to the moments of each recording so that all are on the clock of the first, and what to know of it.

    Recordings of one boot of one machine have one clock. Others are set by the machines' clocks of the day.
    """
    keys = [str(header.get("boot") or header.get("host") or "") for header in headers]
    ahead: dict[str, list[int]] = {}
    for key, header in zip(keys, headers, strict=True):
        ahead.setdefault(key, []).append(int(header["wall_ns"]) - int(header["monotonic_ns"]))
    middle = {key: sorted(each)[len(each) // 2] for key, each in ahead.items()}
    others = [header["rank"] for key, header in zip(keys, headers, strict=True) if key != keys[0]]
    note = ""
    if others:
        who = "ranks" if len(others) > 1 else "rank"
        note = (
            f"{who} {text.numbers(others)} ran on another machine than rank {headers[0]['rank']}, or before it was started anew: "
            "times across them are only as good as the machines' clocks agree"
        )
    return [middle[key] - middle[keys[0]] for key in keys], note
