"""CPU of the background thread of a recording: alone, and with a training of so many steps per second beside it."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.recording.direct import SmallLoop
from perfnb.record.recorder import Recorder

RATES: Final = (0, 20, 200)
"""Steps per second; 0: nothing trains."""


@dataclass(frozen=True, slots=True)
class BackgroundCost:
    """What the thread took while so many steps per second were recorded.

    Attributes
    ----------
    steps_per_s
        Steps that were asked for, and that were made.
    core_share
        CPU of the thread over the time that passed; 1 is a whole core.
    start_cpu_s
        CPU of its first second, in which it opens its files: not in the share.
    """

    steps_per_s: int
    made_per_s: float
    core_share: float
    start_cpu_s: float
    seconds: float


def background_cost(steps_per_s: int, seconds: float) -> BackgroundCost:
    """Record into a folder at the default rates, and read the thread's own clock.

    Parameters
    ----------
    steps_per_s, seconds
        Speed of the training, whose steps compute next to nothing, and how long it is watched.
    """
    loop = SmallLoop()
    with tempfile.TemporaryDirectory(prefix="perfnb-overhead-") as folder, Recorder(Path(folder) / "run") as recorder:
        _train(loop, steps_per_s, 1.0)
        began, start_cpu = time.perf_counter(), _cpu_s(recorder)
        made = _train(loop, steps_per_s, seconds)
        took, spent = time.perf_counter() - began, _cpu_s(recorder) - start_cpu
    return BackgroundCost(steps_per_s, made / took, spent / took, start_cpu, took)


def _train(loop: SmallLoop, steps_per_s: int, seconds: float) -> int:
    """Steps made; what a step does not need of its time is slept."""
    if not steps_per_s:
        time.sleep(seconds)
        return 0
    loop.run(round(steps_per_s * seconds), pause_s=1 / steps_per_s)
    return round(steps_per_s * seconds)


def _cpu_s(recorder: Recorder) -> float:
    sampler = recorder._background and recorder._background._sampler  # noqa: SLF001 - the thread's clock has no public face
    assert sampler is not None  # noqa: S101 - it records
    return sampler.cpu_ns / 1e9
