"""Direct cost: CPU time of the training thread that the hooks add to a step, counted with a loop that hardly computes."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from benchmarks.recording.statistics import Interval, median_interval
from perfnb.record.background import Background
from perfnb.record.hooks import Watch
from perfnb.record.marks import Marks

BLOCK_STEPS: Final = 200
"""Steps of a block: as often as in a long training it looks for new modules (1 step in 100) and at torch (1 in 20)."""

_SETTLED_AFTER: Final = 8


@dataclass(frozen=True, slots=True)
class DirectCost:
    """CPU of the training thread per step.

    Attributes
    ----------
    plain_us
        A step of the loop itself.
    added_us
        What the hooks add to it.
    marks, notes
        Boundaries with all clocks, and values, that one step leaves.
    parts_us
        Each hook alone, round a function that does nothing: best of some tries.
    steps
        Steps measured with hooks.
    """

    plain_us: float
    added_us: Interval
    marks: float
    notes: float
    parts_us: dict[str, float]
    steps: int


class SmallLoop:
    """A training loop with every part that the hooks watch, and as little work as torch allows."""

    def __init__(self) -> None:
        self._model = torch.nn.Linear(1, 1)
        self._optimizer = torch.optim.SGD(self._model.parameters(), lr=1e-3)
        rows = torch.zeros(1, 1)
        self._batch = [rows, rows]

    def run(self, steps: int, pause_s: float = 0.0) -> None:
        """Train; the data are there already, only the loader's own code runs.

        Parameters
        ----------
        steps
            How many.
        pause_s
            From the start of one to the next; what is left of it is slept.
        """
        due = time.perf_counter()
        model, optimizer = self._model, self._optimizer
        loader = torch.utils.data.DataLoader(_Rows(self._batch, steps), batch_size=None)
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = (model(inputs) - targets).sum()
            loss.backward()
            optimizer.step()
            if pause_s:
                due += pause_s
                time.sleep(max(due - time.perf_counter(), 0.0))


class _Rows(torch.utils.data.IterableDataset[Any]):
    """The same batch again and again."""

    def __init__(self, batch: Any, steps: int) -> None:
        self._batch, self._steps = batch, steps

    def __iter__(self) -> Iterator[Any]:
        return iter([self._batch] * self._steps)


@contextmanager
def hooked() -> Iterator[Marks]:
    """The hooks of a recording at work on this thread, its background thread left out."""
    marks = Marks()
    watch = Watch(marks, lambda: None)
    watch.on_edge = Background(marks, watch, gpu_interval_s=1.0, host_interval_s=0.1).at_edge
    watch.install()
    try:
        yield marks
    finally:
        watch.remove()
        marks.close()


def direct_cost(blocks: int) -> DirectCost:
    """Paired blocks with hooks and without, in the order A B B A; the median of the differences and its interval.

    Parameters
    ----------
    blocks
        Pairs of blocks, each of `BLOCK_STEPS` steps.
    """
    torch.set_num_threads(1)
    loop = SmallLoop()
    loop.run(BLOCK_STEPS)
    plain: list[float] = []
    with_hooks: list[float] = []
    taken = steps = notes = 0
    gc.collect()
    for number in range(blocks):
        for is_hooked in (number % 2 == 1, number % 2 == 0):
            if not is_hooked:
                loop.run(_SETTLED_AFTER)
                plain.append(_cpu_us(loop))
                continue
            with hooked() as marks:
                loop.run(_SETTLED_AFTER)
                marks.taken()
                with_hooks.append(_cpu_us(loop))
                left = marks.taken()
            with_clocks = sum(len(mark) > 3 for mark in left)  # noqa: PLR2004 - code, what, wall; see `perfnb.record.marks.Mark`
            taken, notes, steps = taken + with_clocks, notes + len(left) - with_clocks, steps + BLOCK_STEPS
    added = np.array(with_hooks) - np.array(plain)
    return DirectCost(float(np.median(plain)), median_interval(added), taken / steps, notes / steps, parts(), steps)


def _cpu_us(loop: SmallLoop) -> float:
    began = time.thread_time_ns()
    loop.run(BLOCK_STEPS)
    return (time.thread_time_ns() - began) / BLOCK_STEPS / 1e3


def parts(calls: int = 4000, tries: int = 5) -> dict[str, float]:
    """Each hook alone, in us: around nothing, so that nothing of torch's own is in it.

    Parameters
    ----------
    calls, tries
        The best mean of so many calls, of so many tries: what a disturbance adds is none of the hook's.
    """
    marks = Marks()
    watch = Watch(marks, lambda: None)
    watch.install()
    batch, iterator = [torch.zeros(4, 1)], torch.nn.Identity()  # any object may stand for the loader's iterator
    loss, optimizer, module = torch.zeros(()), torch.optim.SGD([torch.zeros(1)], lr=0.1), torch.nn.Identity()
    watch._after_step(optimizer, (), {})  # noqa: SLF001 - the very hooks; they have no public face
    next_batch, backward = watch._next_batch(lambda _: batch), watch._backward(lambda _: None)  # noqa: SLF001
    before, after = watch.modules._before, watch.modules._after  # noqa: SLF001
    before_step, after_step = watch._before_step, watch._after_step  # noqa: SLF001

    def forward() -> None:
        before(module, ())
        after(module, (), None)

    def step() -> None:
        before_step(optimizer, (), {})
        after_step(optimizer, (), {})

    hooks: dict[str, Callable[[], Any]] = {
        "next batch": lambda: next_batch(iterator),
        "forward of a root module": forward,
        "backward": lambda: backward(loss),
        "optimizer step and edge": step,
        "of these: one mark with its clocks": lambda: marks.mark(0, "data"),
    }
    found = {}
    for name, hook in hooks.items():
        found[name] = min(_mean_us(hook, calls) for _ in range(tries))
        marks.taken()
    watch.remove()
    marks.close()
    return found


def _mean_us(hook: Callable[[], Any], calls: int) -> float:
    began = time.thread_time_ns()
    for _ in range(calls):
        hook()
    return (time.thread_time_ns() - began) / calls / 1e3
