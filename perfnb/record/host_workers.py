"""Loader workers of this process, and what it and they read and write."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from perfnb.record.host_files import (
    CLOCK_TICKS_PER_S,
    KeptFile,
    number_after,
    process_state,
    running_and_waiting_ns,
    storage_and_calls,
)
from perfnb.record.host_parts import NS, Clock, Value

WORKERS_PER_ROW: Final = 2
"""Of twice as many workers every second row tells, and so on, so that what a row costs does not grow with them."""

_VOLUNTARY: Final = b"\nvoluntary_ctxt_switches:"
_RESIDENT: Final = b"\nVmRSS:"  # a process that has ended and was not waited for yet has no such line
_KIBIBYTE: Final = 1024
_NS_PER_TICK: Final = NS // CLOCK_TICKS_PER_S


class Worker:
    """One process, its files kept open; its counters stand where they were last read.

    Raises
    ------
    OSError
        If it has ended.
    """

    __slots__ = ("_clock_id", "cpu_ns", "files", "pid", "scheduled_ns", "switches")

    def __init__(self, root: Path, pid: int) -> None:
        self.pid = pid
        self.files = {name: KeptFile(root / f"proc/{pid}/{name}") for name in ("schedstat", "stat", "status")}
        self._clock_id = _cpu_clock(pid)
        self.cpu_ns = self.switches = 0
        self.scheduled_ns = (0, 0)
        self.advance()
        self.state()

    def advance(self) -> tuple[int, tuple[int, int] | None]:
        """CPU time of all its threads, and the main thread's on a core and waiting for one, since the last call."""
        cpu_ns = self._cpu_ns()
        try:
            scheduled_ns = running_and_waiting_ns(self.files["schedstat"].read())
        except ValueError:
            scheduled_ns = (0, 0)
        cpu_before, self.cpu_ns = self.cpu_ns, cpu_ns
        before, self.scheduled_ns = self.scheduled_ns, scheduled_ns
        grown = (scheduled_ns[0] - before[0], scheduled_ns[1] - before[1]) if any(scheduled_ns) else None
        return max(cpu_ns - cpu_before, 0), grown

    def state(self) -> tuple[int, int]:
        """Resident bytes, and voluntary switches of its main thread since the last call."""
        status = self.files["status"].read()
        try:
            resident = number_after(status, _RESIDENT) * _KIBIBYTE
        except ValueError as error:
            raise ProcessLookupError from error
        before, self.switches = self.switches, number_after(status, _VOLUNTARY)
        return resident, self.switches - before

    def close(self) -> None:
        """Give the files back."""
        for file in self.files.values():
            file.close()

    def _cpu_ns(self) -> int:
        if self._clock_id is not None:
            return time.clock_gettime_ns(self._clock_id)
        return process_state(self.files["stat"].read())[0] * _NS_PER_TICK


class Workers:
    """All workers alive: how many, their CPU and their main threads' waiting. Those that ended leave the sums.

    Where there are many, not every row tells of them.

    Parameters
    ----------
    root
        Folder that stands for `/`.
    clock
        Nanoseconds.

    Attributes
    ----------
    named
        Numbers of the processes that load data, as they were said last; None before anybody did.
    alive
        Those of them that run.
    """

    columns = ("workers", "worker_cpu_cores", "worker_runqueue_share", "worker_blocked_share")

    def __init__(self, root: Path, clock: Clock) -> None:
        self._root, self._clock = root, clock
        self.named: frozenset[int] | None = None
        self._taken: frozenset[int] = frozenset()
        self._before_ns: int | None = None
        self._rows_left = 0
        self.alive: dict[int, Worker] = {}

    def name(self, pids: Iterable[int]) -> None:
        """Say which processes load data now; may be called from any thread, costs nothing."""
        self.named = frozenset(pids)

    def read(self) -> Sequence[Value]:
        """See `Part`."""
        named = self.named
        self._rows_left -= 1
        if named is None or (self._rows_left > 0 and named == self._taken):
            return (None,) * len(self.columns)
        now_ns = self._clock()
        wall = 0 if self._before_ns is None else now_ns - self._before_ns
        self._before_ns = now_ns
        cpu_ns, waiting, blocked = 0, [], []
        for worker in list(self.alive.values()):
            if worker.pid not in named:
                self.drop(worker)
                continue
            try:
                grown_ns, scheduled = worker.advance()
            except OSError:
                self.drop(worker)
                continue
            cpu_ns += grown_ns
            if scheduled is not None and wall > 0:
                waiting.append(scheduled[1] / wall)
                blocked.append(1 - sum(scheduled) / wall)
        self._adopt(named)
        self._rows_left = -(-len(self.alive) // WORKERS_PER_ROW)
        if not self.alive:
            return 0, 0.0, None, None
        return len(self.alive), cpu_ns / wall if wall > 0 else None, _mean(waiting), _mean(blocked)

    def drop(self, worker: Worker) -> None:
        """Leave a worker that has ended out from now on."""
        worker.close()
        self.alive.pop(worker.pid, None)

    def close(self) -> None:
        """See `Part`."""
        for worker in list(self.alive.values()):
            self.drop(worker)
        self._taken = frozenset()

    def _adopt(self, named: frozenset[int]) -> None:
        """Take in those named since: what they did before counts nowhere."""
        for pid in sorted(named - self._taken):
            try:
                self.alive[pid] = Worker(self._root, pid)
            except OSError:  # it has ended already
                continue
        self._taken = named


class WorkerStates:
    """Memory of all workers, and how often their main threads gave up the core, per second."""

    columns = ("worker_memory_bytes", "worker_switches_per_s")

    def __init__(self, workers: Workers, clock: Clock) -> None:
        self._workers, self._clock = workers, clock
        self._before_ns: int | None = None

    def read(self) -> Sequence[Value]:
        """See `Part`."""
        if self._workers.named is None:
            return None, None
        now_ns = self._clock()
        before_ns, self._before_ns = self._before_ns, now_ns
        resident = switches = 0
        for worker in list(self._workers.alive.values()):
            try:
                held, switched = worker.state()
            except OSError:
                self._workers.drop(worker)
                continue
            resident += held
            switches += switched
        return resident, None if before_ns is None or now_ns <= before_ns else switches * NS / (now_ns - before_ns)

    def close(self) -> None:
        """See `Part`."""


class Transfers:
    """Bytes per second that this process and its workers read and write, at the storage and through system calls."""

    columns = ("read_bytes_per_s", "write_bytes_per_s", "read_chars_per_s", "write_chars_per_s")

    def __init__(self, root: Path, workers: Workers, clock: Clock) -> None:
        self._root, self._workers, self._clock = root, workers, clock
        self._own = KeptFile(root / "proc/self/io", 512)
        self._files: dict[int, KeptFile] = {}
        self._before: dict[int, tuple[int, ...]] = {}
        self._before_ns: int | None = None

    def read(self) -> Sequence[Value]:
        """See `Part`."""
        now_ns = self._clock()
        before_ns, self._before_ns = self._before_ns, now_ns
        counters: dict[int, tuple[int, ...]] = {0: storage_and_calls(self._own.read())}
        for pid in self._files.keys() - self._workers.alive.keys():
            self._files.pop(pid).close()
        for pid in self._workers.alive:
            file = self._files.setdefault(pid, KeptFile(self._root / f"proc/{pid}/io", 512))
            try:
                counters[pid] = storage_and_calls(file.read())
            except (ProcessLookupError, FileNotFoundError):
                continue
        before = self._before
        self._before = counters
        if before_ns is None or now_ns <= before_ns:
            return (None,) * len(self.columns)
        grown = [0] * len(self.columns)
        for pid, after in counters.items():
            for position, (count, start) in enumerate(zip(after, before.get(pid, after), strict=True)):
                grown[position] += max(count - start, 0)
        return [count * NS / (now_ns - before_ns) for count in grown]

    def close(self) -> None:
        """See `Part`."""
        for file in (self._own, *self._files.values()):
            file.close()


def _cpu_clock(pid: int) -> int | None:
    """Clock of the CPU time of another process, to the nanosecond; None where there is none: /proc/PID/stat has ticks."""
    if not sys.platform.startswith("linux"):
        return None
    clock_id = (~pid << 3) | 2  # CPUCLOCK_SCHED, linux/include/linux/posix-timers_types.h: what clock_getcpuclockid(3) gives
    try:
        time.clock_gettime_ns(clock_id)
    except OSError:
        return None
    return clock_id


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
