"""Parts of a row about the host: each reads one thing and fills a few columns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from perfnb.record.cgroup import ControlGroup, usable_cores
from perfnb.record.host_files import Interfaces, KeptFile, busy_and_total, niced, number_after, running_and_waiting_ns

Value = float | int | None
Clock = Callable[[], int]

NS: Final = 1_000_000_000
REFRESH_NS: Final = 60 * NS
"""How often limits are looked for anew."""

_KIBIBYTE: Final = 1024


class Part(Protocol):
    """Something that fills columns of a row."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Those that it fills, in the order of its values."""
        ...

    def read(self) -> Sequence[Value]:
        """Values of its columns now; any exception ends the part, and becomes the reason why its columns are missing."""
        ...

    def close(self) -> None:
        """Give back what it holds open."""
        ...


def nothing() -> None:
    """Nothing to give back."""


class Levels:
    """Values that stand for themselves.

    Parameters
    ----------
    columns
        Columns that are filled.
    ask
        Gives their values.
    close
        Gives back what `ask` holds open.
    """

    def __init__(self, columns: tuple[str, ...], ask: Callable[[], Sequence[Value]], close: Callable[[], None] = nothing) -> None:
        self.columns = columns
        self.read = ask
        self.close = close


class Rates:
    """What counters grew by per second since the row before; None in the first row.

    Parameters
    ----------
    columns
        Columns that are filled.
    ask
        Gives the counters, in the same order.
    clock
        Nanoseconds.
    scale
        What one count is worth.
    close
        Gives back what `ask` holds open.
    """

    def __init__(
        self,
        columns: tuple[str, ...],
        ask: Callable[[], Sequence[float]],
        clock: Clock,
        scale: float = 1.0,
        close: Callable[[], None] = nothing,
    ) -> None:
        self.columns = columns
        self.close = close
        self._ask, self._clock, self._scale = ask, clock, scale
        self._before: tuple[int, Sequence[float]] | None = None

    def read(self) -> Sequence[Value]:
        """See `Part`."""
        now_ns = self._clock()  # before the question: the answer's own wait for the interpreter comes after it was taken
        counters = self._ask()
        before, self._before = self._before, (now_ns, counters)
        if before is None or now_ns <= before[0]:
            return (None,) * len(self.columns)
        per_s = self._scale * NS / (now_ns - before[0])
        return [max(after - start, 0) * per_s for after, start in zip(counters, before[1], strict=True)]  # a counter that wrapped


class HostCpu:
    """Busy share of all cores of the host, and the part of it by processes that give way to others."""

    columns = ("cpu_share", "low_priority_cpu_share")

    def __init__(self, root: Path) -> None:
        self._file = KeptFile(root / "proc/stat", 512)  # its first line
        self._before: tuple[int, int, int] | None = None
        self.close = self._file.close

    def read(self) -> Sequence[Value]:
        """See `Part`."""
        stat = self._file.read()
        now = (*busy_and_total(stat), niced(stat))
        before, self._before = self._before, now
        if before is None or now[1] <= before[1]:
            return None, None
        busy, low = ((now[place] - before[place]) / (now[1] - before[1]) for place in (0, 2))
        return min(max(busy, 0.0), 1.0), min(max(low, 0.0), 1.0)  # the kernel's iowait may run backwards


class TrainingThread:
    """Shares of the time that the thread that trains was on a core, waiting for one, or neither.

    A single row may be off by a tick of the kernel in either direction, below 0 too; sums over rows are not.
    """

    columns = ("training_cpu_share", "training_runqueue_share", "training_blocked_share")

    def __init__(self, root: Path, thread: int, clock: Clock) -> None:
        self._file = KeptFile(root / f"proc/self/task/{thread}/schedstat", 64)
        self._clock = clock
        self._before: tuple[int, int, int] | None = None
        self.close = self._file.close

    def read(self) -> Sequence[Value]:
        """See `Part`."""
        now_ns = self._clock()
        now = now_ns, *running_and_waiting_ns(self._file.read())
        before, self._before = self._before, now
        if before is None or now_ns <= before[0]:
            return None, None, None
        wall, running, waiting = (after - start for after, start in zip(now, before, strict=True))
        return running / wall, waiting / wall, 1 - (running + waiting) / wall


class Group:
    """Limits of the control group, its memory (the host's where the group has no limit) and its throttling."""

    columns = ("cgroup_cpu_limit", "memory_bytes", "memory_limit_bytes")
    throttling_columns = ("throttled_us", "nr_periods", "nr_throttled")

    def __init__(self, root: Path, clock: Clock) -> None:
        self.group = ControlGroup(root)
        self._host = KeptFile(root / "proc/meminfo")
        self._clock = clock
        self._refresh_ns = clock() + REFRESH_NS
        self._cores = usable_cores(self.group.cpu_limit())

    def read(self) -> Sequence[Value]:
        """See `Part`."""
        now_ns = self._clock()
        if now_ns >= self._refresh_ns:
            self.group.refresh()
            self._cores = usable_cores(self.group.cpu_limit())
            self._refresh_ns = now_ns + REFRESH_NS
        host = self._host.read()
        total = number_after(host, b"MemTotal:") * _KIBIBYTE
        limited = self.group.memory()
        if limited is None or limited[1] >= total:
            return self._cores, total - number_after(host, b"MemAvailable:") * _KIBIBYTE, total
        return self._cores, *limited

    def read_throttling(self) -> Sequence[Value]:
        """Values of `throttling_columns`: counters since the group was made."""
        found = self.group.throttling()
        if found is None:
            message = "no control group counts the use of a CPU quota"
            raise OSError(message)
        return found.throttled_us, found.nr_periods, found.nr_throttled

    def close(self) -> None:
        """See `Part`."""
        self.group.close()
        self._host.close()


def network(root: Path, clock: Clock) -> Rates:
    """Bytes per second over the host's network."""
    interfaces = Interfaces(root)
    columns = ("network_receive_bytes_per_s", "network_send_bytes_per_s")
    return Rates(columns, interfaces.read, clock, close=interfaces.close)


def cost_ns(part: Part) -> int:
    """CPU time that one reading takes, of the thread that asks."""
    began_ns = time.thread_time_ns()
    part.read()
    return time.thread_time_ns() - began_ns
