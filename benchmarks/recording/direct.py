"""Direct cost: CPU time of the training thread that the hooks add to a step, counted with a loop that hardly computes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import torch

from benchmarks.recording.statistics import Interval, median_interval
from perfnb.record.background import Background
from perfnb.record.hooks import Watch
from perfnb.record.marks import Code, Marks

BLOCK_STEPS: Final = 200
"""Steps of a block: as often as in a long training it looks for new modules (1 step in 100) and at torch (1 in 20)."""

_SETTLED_AFTER: Final = 8
_COUNT: Final = 2500


@dataclass(frozen=True, slots=True)
class DirectCost:
    """CPU of the training thread per step.

    Attributes
    ----------
    loop
        Which loop.
    plain_us
        A step of it without hooks.
    added_us
        What the hooks add.
    marks, notes
        Boundaries with clocks, and values, that one step leaves.
    steps
        Steps measured with hooks, and as many without.
    """

    loop: str
    plain_us: float
    added_us: Interval
    marks: float
    notes: float
    steps: int


class Loop(Protocol):
    """A loop that a recording's hooks watch."""

    name: str

    def run(self, steps: int) -> None:
        """Go through so many steps."""
        ...

    def hook(self, watch: Watch) -> AbstractContextManager[None]:
        """Have the hooks called."""
        ...


class SmallLoop:
    """A training loop with every part that the hooks watch, and as little work as torch allows."""

    name = "a real loop that trains one weight"

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
        loader = torch.utils.data.DataLoader(SameBatch(self._batch, steps), batch_size=None)
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = (model(inputs) - targets).sum()
            loss.backward()
            optimizer.step()
            if pause_s:
                due += pause_s
                time.sleep(max(due - time.perf_counter(), 0.0))

    @contextmanager
    def hook(self, watch: Watch) -> Iterator[None]:
        """See `Loop`: torch calls them."""
        watch.install()
        yield


class CallsOnly:
    """The very calls that torch makes of the hooks in a step, and nothing of torch: its work is a count between them."""

    name = "the calls of the hooks alone, work between them"

    def __init__(self) -> None:
        self._iterator = self._module = torch.nn.Identity()  # any object may stand for the loader's iterator
        self._batch, self._loss = [torch.zeros(4, 1)], torch.zeros(())
        self._optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
        self._calls: tuple[Callable[..., Any], ...] = ()
        self._unhook()

    def run(self, steps: int) -> None:
        """See `Loop`."""
        next_batch, before, after, backward, before_step, after_step = self._calls
        iterator, module, loss, optimizer = self._iterator, self._module, self._loss, self._optimizer
        for _ in range(steps):
            next_batch(iterator)
            _work()
            before(module, ())
            _work()
            after(module, (), None)
            _work()
            backward(loss)
            _work()
            before_step(optimizer, (), {})
            _work()
            after_step(optimizer, (), {})
            _work()

    @contextmanager
    def hook(self, watch: Watch) -> Iterator[None]:
        """See `Loop`: `run` calls them."""
        watch.install()  # what it takes from torch, it calls for us
        self._calls = (
            watch.loaders._next_batch(self._next_batch),  # noqa: SLF001 - the very hooks, which have no public face
            watch.modules._before,  # noqa: SLF001
            watch.modules._after,  # noqa: SLF001
            watch._backward(_work),  # noqa: SLF001
            watch._before_step,  # noqa: SLF001
            watch._after_step,  # noqa: SLF001
        )
        try:
            yield
        finally:
            self._unhook()

    def _unhook(self) -> None:
        self._calls = (self._next_batch, _nothing, _nothing, _work, _nothing, _nothing)

    def _next_batch(self, _iterator: Any) -> Any:
        _work()
        return self._batch


def _nothing(*_: Any) -> None:
    pass


def _work(*_: Any) -> None:
    """About 40 us: longer than `perfnb.record.marks.QUIET_NS`, so that each mark reads the clocks as it does in a training."""
    for _number in range(_COUNT):
        pass


class SameBatch(torch.utils.data.IterableDataset[Any]):
    """The same batch again and again."""

    def __init__(self, batch: Any, steps: int) -> None:
        self._batch, self._steps = batch, steps

    def __iter__(self) -> Iterator[Any]:
        return iter([self._batch] * self._steps)


def direct_costs(pairs: int) -> list[DirectCost]:
    """The cost in a loop that only makes the calls, and in one that trains.

    Parameters
    ----------
    pairs
        Pairs of blocks, each of `BLOCK_STEPS` steps.
    """
    torch.set_num_threads(1)
    return [direct_cost(loop, pairs) for loop in (CallsOnly(), SmallLoop())]


def direct_cost(loop: Loop, pairs: int) -> DirectCost:
    """Paired blocks with hooks and without, in the order A B B A; the median of the differences and its interval.

    Parameters
    ----------
    loop, pairs
        What runs, and pairs of blocks of `BLOCK_STEPS` steps.
    """
    loop.run(BLOCK_STEPS)
    plain: list[float] = []
    with_hooks: list[float] = []
    marks_left = notes_left = 0
    for number in range(pairs):
        for is_hooked in (number % 2 == 1, number % 2 == 0):
            if not is_hooked:
                loop.run(_SETTLED_AFTER)
                plain.append(_cpu_us(loop))
                continue
            with hooked(loop) as marks:
                loop.run(_SETTLED_AFTER)
                marks.taken()
                with_hooks.append(_cpu_us(loop))
                left = marks.taken()
            with_clocks = sum(mark[0] <= Code.END for mark in left)
            marks_left, notes_left = marks_left + with_clocks, notes_left + len(left) - with_clocks
    steps = pairs * BLOCK_STEPS
    added = median_interval(np.array(with_hooks) - np.array(plain))
    return DirectCost(loop.name, float(np.median(plain)), added, marks_left / steps, notes_left / steps, steps)


@contextmanager
def hooked(loop: Loop) -> Iterator[Marks]:
    """The hooks of a recording at work on this thread, its background thread left out."""
    marks = Marks()
    watch = Watch(marks, lambda: None)
    watch.on_edge = Background(marks, watch, gpu_interval_s=1.0, host_interval_s=0.1).at_edge
    try:
        with loop.hook(watch):
            yield marks
    finally:
        watch.remove()
        marks.close()


def _cpu_us(loop: Loop) -> float:
    began = time.thread_time_ns()
    loop.run(BLOCK_STEPS)
    return (time.thread_time_ns() - began) / BLOCK_STEPS / 1e3
