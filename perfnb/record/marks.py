"""Marks: what the training thread leaves behind at each boundary, as raw as can be; all else is made of them elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from perfnb.record.clocks import RunQueueFile

LONGEST_QUEUE: Final = 1_000_000
"""Marks that wait to be written at most: with a reader every half second there are some thousands."""

QUIET_NS: Final = 25_000
"""Reading the CPU clock is a system call, and the line of schedstat is a longer one, so each is read only where it can tell more
than this: the first not within this time of its last reading (until then the thread is taken to have run), the other not before
the thread was away from its core for as long. What is left out of one phase so is in the next: nothing adds up."""


class Code:
    """What happened at a mark: plain numbers, since members of an enumeration take longer to compare."""

    ENTER: Final = 0  # what: the phase
    LEAVE: Final = 1  # what: the phase
    EDGE: Final = 2  # a step ended; what: the phase that ended with it, or None
    END: Final = 3  # the last step ended if it trained
    BATCH: Final = 4  # what: number of samples of a batch or None, or a pair of the number of its iterator and that
    EPOCH: Final = 5  # a pass over the loader began; what: number of its iterator
    SKIPPED: Final = 6  # a gradient scaler left the optimizer's step out
    VALUE: Final = 7  # what: (name, value, whether the user gave it, step or None)
    ROW: Final = 8  # what: (table, row without its step)
    PROFILER: Final = 9  # what: 1 where a profiler runs from here on, 0 where it ended
    EXCHANGED: Final = 10  # what: how long the backward pass that just ended only waited for other ranks, ns


Mark = tuple[Any, ...]
"""One boundary: code, what, wall_ns, and for those of phases and steps (up to END) cpu_ns, the line of schedstat as read last or
None, and its event where a device is in use; None for the others. A plain tuple: making anything better takes as long as reading
a clock."""

_FIELDS: Final = 6


class Marks:
    """The marks of one thread.

    Attributes
    ----------
    queue
        Fields of the marks not yet taken, oldest first; leaving and taking marks are safe side by side. They lie one after the
        other, not in tuples: hundreds of new containers would have Python collect garbage in the midst of the training.
    mark
        Leaves a mark with all clocks: `mark(code, what)`.
    note
        Leaves one with the wall clock only.
    """

    def __init__(self, event: Callable[[], Any] | None = None) -> None:
        """Clocks of the calling thread; `event` takes a mark on its device, where one is in use."""
        self.queue: deque[Any] = deque(maxlen=_FIELDS * LONGEST_QUEUE)
        self._file = RunQueueFile()
        self.mark: Callable[[int, Any], None]
        self.with_events(event)
        extend, wall = self.queue.extend, time.perf_counter_ns

        def note(code: int, what: Any) -> None:
            extend((code, what, wall(), None, None, None))

        self.note = note

    def with_events(self, event: Callable[[], Any] | None) -> None:
        """From here on `mark` takes an event of the device too, or none."""
        extend, wall, cpu = self.queue.extend, time.perf_counter_ns, time.thread_time_ns
        schedstat = self._file.reader()
        looked = used = 0  # when the CPU clock was read, and what it said
        away, line = -QUIET_NS, schedstat()  # wall less CPU when the line was read: grows by the time away from the core

        def mark(code: int, what: Any) -> None:
            nonlocal looked, used, away, line
            now = wall()
            if now - looked < QUIET_NS:
                spent = used + now - looked
            else:
                looked, used = now, cpu()
                spent = used
                if code != Code.ENTER:  # system calls, and waiting for a core again after them, belong to the phase they end
                    looked = now = wall()
                if now - used - away > QUIET_NS:
                    away, line = now - used, schedstat()
            extend((code, what, now, spent, line, None if event is None else event()))

        self.mark = mark

    def taken(self) -> list[Mark]:
        """The marks so far, which leave the queue."""
        take = self.queue.popleft
        return [(take(), take(), take(), take(), take(), take()) for _ in range(len(self.queue) // _FIELDS)]

    def close(self) -> None:
        """No more marks are left; those in the queue can still be taken."""
        self.mark = lambda code, what: None  # noqa: ARG005 - as before
        self.note = self.mark
        self._file.close()
