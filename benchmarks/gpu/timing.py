"""Step times of several trainings that take turns (A B B A), and the peaks of memory of each."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any, Final

import torch

from benchmarks.gpu.training import synchronize

DROPPED: Final = 2
"""Steps of each turn that are not kept: they find another side's data in the caches."""


def interleaved(sides: Mapping[str, Any], *, steps: int, turns: int, seconds: float) -> dict[str, dict[str, Any]]:
    """Times of all steps of each side, in turns A B B A, A B B A, until `turns` or the time is over.

    Parameters
    ----------
    sides
        Name to a training: `activate()`, then `step()`.
    steps
        Steps of a turn that are kept; fewer where they would take too long.
    turns
        Turns of each side, even.
    seconds
        For all together; at least two turns of each are made.

    Returns
    -------
    dict
        Side to `device_us` (between events of the device; empty on the CPU), `wall_us` (the turn's wall time over its steps,
        one per turn), `host_us` (time of the host between steps), and peaks of memory.
    """
    found: dict[str, dict[str, Any]] = {name: {"device_us": [], "host_us": [], "wall_us": [], "memory": []} for name in sides}
    until = time.perf_counter() + seconds
    names = list(sides)
    for pair in range(turns // 2):
        if pair and time.perf_counter() > until:
            break
        for name in (*names, *reversed(names)):
            left = max(until - time.perf_counter(), 0.0)
            _turn(sides[name], steps, left / (2 * len(names)), found[name])
    for each in found.values():
        each["median_device_us"] = round(median(each["device_us"]), 1) if each["device_us"] else None
        each["median_wall_us"] = round(median(each["wall_us"]), 1)
        each["median_host_us"] = round(median(each["host_us"]), 1)
    return found


def _turn(side: Any, steps: int, seconds: float, into: dict[str, Any]) -> None:
    side.activate()
    on_device = torch.cuda.is_available()
    if on_device:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
    for _ in range(DROPPED):
        side.step()
    synchronize()
    events = [_event()] if on_device else []
    started = [time.perf_counter_ns()]
    for number in range(steps):
        side.step()
        events += [_event()] if on_device else []
        started.append(time.perf_counter_ns())
        if number >= DROPPED and started[-1] - started[0] > seconds * 1e9:
            break
    synchronize()
    ended = time.perf_counter_ns()
    made = len(started) - 1
    into["host_us"] += [round((after - before) / 1e3, 1) for before, after in itertools.pairwise(started)]
    into["device_us"] += [round(a.elapsed_time(b) * 1e3, 1) for a, b in itertools.pairwise(events)]
    into["wall_us"].append(round((ended - started[0]) / 1e3 / made, 1))
    if on_device:
        allocated, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
        peaks = {"peak_allocated_bytes": allocated, "peak_reserved_bytes": reserved}
        into["memory"].append({"held_before_bytes": held, **peaks})


def _event() -> Any:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def cost_us(call: Callable[[], Any], *, calls: int) -> dict[str, float]:
    """Median and 90th percentile of the time of a call, in microseconds."""
    times = []
    for _ in range(calls):
        start = time.perf_counter_ns()
        call()
        times.append((time.perf_counter_ns() - start) / 1e3)
    times.sort()
    return {"median_us": round(times[len(times) // 2], 2), "p90_us": round(times[int(0.9 * len(times))], 2), "calls": calls}
