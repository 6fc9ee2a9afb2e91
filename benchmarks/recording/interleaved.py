"""Step times with a tool and without, block by block in one process: A B B A, and A A A A as a control."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from benchmarks.recording.statistics import Interval, median_interval
from benchmarks.recording.workload import Taken, Workload
from perfnb.record.recorder import Recorder

AfterStep = Callable[[], Any] | None
CONTROL: Final = "nothing (control A/A)"
RECORDER: Final = "perfnb.record"
_FEWEST_FIRST: Final = 6
"""Until the recorder has found the outermost modules: `perfnb.record.module_hooks.SEARCH_STEPS`."""

_FIRST_MS: Final = 600.0
"""Until its background thread has opened its files and delivered rows once, every half second; a training starts but once."""


@dataclass(frozen=True, slots=True)
class Added:
    """What a tool adds to a step, as shares of it; the median over rounds and its 95 % interval.

    Attributes
    ----------
    side
        The tool.
    target_ms, plain_ms
        Time of a step that was aimed at, and the one that was measured without the tool.
    own, wall, mean
        Of the blocks' medians of the time less waiting for a core; of the medians of the wall time; of the means of the former.
    rounds, steps
        How many rounds, and steps with the tool.
    """

    side: str
    target_ms: float
    plain_ms: float
    own: Interval
    wall: Interval
    mean: Interval
    rounds: int
    steps: int


@contextlib.contextmanager
def _recorder() -> Iterator[AfterStep]:
    with tempfile.TemporaryDirectory(prefix="perfnb-overhead-") as folder, Recorder(Path(folder) / "run"):
        yield None


@contextlib.contextmanager
def _profiler(schedule: Any = None) -> Iterator[AfterStep]:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], schedule=schedule) as profiler:
        yield profiler.step


SIDES: Final[dict[str, Callable[[], AbstractContextManager[AfterStep]]]] = {
    RECORDER: _recorder,
    CONTROL: lambda: contextlib.nullcontext(None),
    "torch.profiler, its schedule waiting": lambda: _profiler(torch.profiler.schedule(wait=10**6, warmup=1, active=1)),
    "torch.profiler, recording": _profiler,
}


def interleaved(workload: Workload, sides: Sequence[str], rounds: int, steps: int) -> list[Added]:
    """Blocks of each side between two without, in each of so many rounds.

    Parameters
    ----------
    workload
        What trains.
    sides
        Names out of `SIDES`.
    rounds, steps
        Rounds, and steps of a block.
    """
    taken: dict[str, list[list[Taken]]] = {side: [] for side in sides}
    for number in range(rounds):
        turned = [*sides[number % len(sides) :], *sides[: number % len(sides)]]
        for side in turned:
            taken[side].append([_block(workload, name, steps) for name in (CONTROL, side, side, CONTROL)])
    return [added(side, workload.target_ms, found) for side, found in taken.items()]


def added(side: str, target_ms: float, rounds: Sequence[Sequence[Taken]]) -> Added:
    """What the blocks of some rounds say, each round's in the order A B B A."""
    statistics: dict[str, Callable[[Taken], float]] = {
        "own": lambda block: float(np.median(block.own_ms)),
        "wall": lambda block: float(np.median(block.wall_ms)),
        "mean": lambda block: float(np.mean(block.own_ms)),
    }
    shares = {}
    for name, statistic in statistics.items():
        blocks = np.array([[statistic(block) for block in blocks] for blocks in rounds])
        plain = blocks[:, [0, 3]].sum(axis=1)
        shares[name] = median_interval(blocks[:, [1, 2]].sum(axis=1) / plain - 1)
    plain_ms = float(np.median([statistics["own"](blocks[place]) for blocks in rounds for place in (0, 3)]))
    steps = sum(len(blocks[place].wall_ms) for blocks in rounds for place in (1, 2))
    return Added(side, target_ms, plain_ms, shares["own"], shares["wall"], shares["mean"], len(rounds), steps)


def _block(workload: Workload, side: str, steps: int) -> Taken:
    first = max(_FEWEST_FIRST, round(_FIRST_MS / workload.target_ms))
    with SIDES[side]() as after_step:
        return workload.block(steps, first, after_step)
