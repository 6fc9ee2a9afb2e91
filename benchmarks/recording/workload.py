"""A training on the CPU whose steps take a given time, and what each step took: wall, CPU, and waiting for a core."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.recording.direct import SameBatch
from perfnb.record.clocks import RunQueueFile, runqueue_ns

_WIDTH: Final = 256
_LAYERS: Final = 4
_FIRST_BATCH: Final = 64
_TRIES: Final = 3


@dataclass(frozen=True, slots=True)
class Taken:
    """Times of each step of a block, in ms.

    Attributes
    ----------
    wall_ms
        From the end of the step before to its end.
    own_ms
        The same less the time that the thread waited for a core; wall itself where the system does not tell.
    """

    wall_ms: npt.NDArray[np.float64]
    own_ms: npt.NDArray[np.float64]


class Workload:
    """A small network in a plain loop, with one thread: what else runs on the machine then disturbs it least.

    Parameters
    ----------
    target_ms
        What a step takes, about.
    batch_size
        Samples of a batch; found by trying if not given.
    """

    def __init__(self, target_ms: float, batch_size: int | None = None) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        layers = [part for _ in range(_LAYERS) for part in (torch.nn.Linear(_WIDTH, _WIDTH), torch.nn.ReLU())]
        self.target_ms = target_ms
        self.model = torch.nn.Sequential(*layers)
        self._optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-4)
        self._clock = RunQueueFile()
        self.has_runqueue = self._clock.descriptor is not None
        self._use(batch_size or _FIRST_BATCH)
        for _ in range(0 if batch_size else _TRIES):
            took_ms = float(np.median(self.block(8, 2).own_ms))
            self._use(max(1, round(self.batch_size * target_ms / took_ms)))

    def _use(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self._batch = [torch.randn(batch_size, _WIDTH), torch.zeros(batch_size, _WIDTH)]

    def block(self, steps: int, first: int, after_step: Callable[[], Any] | None = None) -> Taken:
        """Train so many steps; what each took.

        Parameters
        ----------
        steps
            Steps that are told.
        first
            Steps before them that are not: those in which a tool settles.
        after_step
            Called at the end of each, as a profiler asks for it.
        """
        read, clock = self._clock.reader(), time.perf_counter_ns
        seen = []
        for inputs, targets in torch.utils.data.DataLoader(SameBatch(self._batch, steps + first), batch_size=None):
            self.step(inputs, targets)
            if after_step is not None:
                after_step()
            seen.append((clock(), runqueue_ns(read()) or 0))
        told = np.diff(np.array(seen[first - 1 :], dtype=np.float64), axis=0) / 1e6
        return Taken(told[:, 0], told[:, 0] - told[:, 1])

    def step(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        """One step of training."""
        self._optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(self.model(inputs), targets)
        loss.backward()
        self._optimizer.step()
