"""The host, its control group, this process and its loader workers, as rows of the table host_samples."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from perfnb.record.gaps import Gap, Gaps
from perfnb.record.host_files import (
    PAGE_BYTES,
    Disks,
    KeptFile,
    number_after,
    pressure_share,
    process_state,
)
from perfnb.record.host_parts import NS, Clock, Group, HostCpu, Levels, Part, Rates, TrainingThread, cost_ns, network
from perfnb.record.host_portable import NO_PROC, PortableWorkers, fast_parts, slow_parts
from perfnb.record.host_workers import Transfers, Workers, WorkerStates
from perfnb.record.rows import COLUMNS
from perfnb.record.sink import Row

DEAR_NS: Final = 200_000
"""/proc/stat lists every core and interrupt: where one reading of it takes longer, it is read with the slow values."""

_COLUMNS: Final = COLUMNS["host_samples"][1:]  # without the moment
_NO_WORKERS_TOLD: Final = "nothing told which processes load data"


class HostCollector:
    """Rows about the host: some values in each, the others once a second and missing in between.

    In every row: cpu_share, own CPU, memory and threads, the training thread's shares; and, in every n-th row where there are
    more than two, loader workers, their CPU and their waiting.
    Once a second: load, control group, pressure, disks, network, swap, what the process and its workers read and write,
    switches, the workers' memory. Shares and rates are over the time since the value before: the first row has none.
    Files stay open and are never asked again once they failed: the gap has the reason.

    Parameters
    ----------
    training_thread_id
        The system's number of the thread that trains (threading.get_native_id); the calling one if not given.
    interval_s, slow_interval_s
        Between two rows, and between two rows with the slow values.
    root
        Folder that stands for `/`. Where it has no /proc, psutil is asked.
    clock
        Nanoseconds of the monotonic clock.
    """

    table = "host_samples"

    def __init__(
        self,
        training_thread_id: int | None = None,
        *,
        interval_s: float = 0.1,
        slow_interval_s: float = 1.0,
        root: Path = Path("/"),
        clock: Clock = time.perf_counter_ns,
    ) -> None:
        self.interval_s = interval_s
        self.gaps = Gaps()
        self._slow_ns = int(slow_interval_s * NS)
        self._root, self._clock = root, clock
        self._thread = threading.get_native_id() if training_thread_id is None else training_thread_id
        self._followed: int | None = None
        self._workers = Workers(root, clock)
        self._process = os.getpid()
        self._fast: list[Part] = []
        self._slow: list[Part] = []
        self._lost: dict[str, Gap] = {}
        self._slow_columns: frozenset[str] = frozenset()
        self._slow_due_ns: int | None = None

    def set_workers(self, pids: Iterable[int]) -> None:
        """Say which processes load data for this one from now on; cheap, and from any thread."""
        self._workers.name(pids)

    def set_training_thread(self, training_thread_id: int) -> None:
        """Say which thread trains from now on; cheap, and from any thread."""
        self._thread = training_thread_id

    def collect(self, now_ns: int) -> Mapping[str, list[Row]]:
        """One row; none in a forked child, whose numbers in /proc would be those of its parent."""
        if os.getpid() != self._process:
            return {}
        if self._slow_due_ns is None:
            self._begin(now_ns)
        if self._followed != self._thread:
            self._follow(self._thread)
        values: dict[str, float | int | None] = {}
        self._ask(self._fast, values, now_ns)
        is_slow = self._slow_due_ns is None or now_ns >= self._slow_due_ns
        if is_slow:
            self._ask(self._slow, values, now_ns)
            self._slow_due_ns = now_ns + self._slow_ns - int(self.interval_s * NS / 2)  # a turn may come a little early
        for column, gap in self._lost.items():
            if is_slow or column not in self._slow_columns:
                gap.count += 1
        return {self.table: [(now_ns, *map(values.get, _COLUMNS))]}

    def close(self) -> None:
        """See `perfnb.record.collector.Collector`."""
        if self._workers.named is None:
            for column in _COLUMNS:
                if column.startswith("worker"):
                    self.gaps.note(self.table, column, None, _NO_WORKERS_TOLD, self._clock())
        self.abandon()

    def abandon(self) -> None:
        """See `perfnb.record.collector.Collector`; files of this process may be closed in a child."""
        for part in (*self._fast, *self._slow, self._workers):
            part.close()

    def _begin(self, now_ns: int) -> None:
        if not (self._root / "proc/self").exists():
            self._fast, self._slow = fast_parts(self._workers, self._clock), slow_parts(self._clock)
        else:
            self._fast, self._slow = self._parts()
        self._fast.append(Rates(("own_cpu_cores",), lambda: (time.process_time_ns(),), self._clock, 1 / NS))
        filled = {column for part in (*self._fast, *self._slow) for column in part.columns}
        self._slow_columns = frozenset(column for part in self._slow for column in part.columns)
        if any(isinstance(part, PortableWorkers) for part in self._fast):
            for column in _COLUMNS:
                if column not in filled:
                    self._lost[column] = self.gaps.open(self.table, column, None, NO_PROC, now_ns)
            self._followed = self._thread

    def _parts(self) -> tuple[list[Part], list[Part]]:
        root, clock, workers = self._root, self._clock, self._workers
        process, load, swap = (
            KeptFile(root / "proc/self/stat"),
            KeptFile(root / "proc/loadavg"),
            KeptFile(root / "proc/vmstat", 1 << 15),
        )
        group, disks = Group(root, clock), Disks(root)
        own = Levels(("own_threads", "own_memory_bytes"), lambda: process_state(process.read())[1:], process.close)
        host = HostCpu(root)
        try:
            is_dear = cost_ns(host) > DEAR_NS
        except (OSError, ValueError):
            is_dear = False  # the first row says what is wrong
        slow: list[Part] = [
            group,
            Levels(Group.throttling_columns, group.read_throttling),
            Levels(("load_1m",), lambda: (float(load.read().split(None, 1)[0]),), load.close),
            Rates(("disk_read_bytes_per_s", "disk_write_bytes_per_s"), disks.read, clock, close=disks.close),
            network(root, clock),
            Rates(("swap_in_bytes_per_s",), lambda: (number_after(swap.read(), b"\npswpin "),), clock, PAGE_BYTES, swap.close),
            Transfers(root, workers, clock),
            WorkerStates(workers, clock),
            *(self._pressure(kind) for kind in ("cpu", "memory", "io")),
        ]
        fast: list[Part] = [workers, own]
        (slow if is_dear else fast).append(host)
        return fast, slow

    def _pressure(self, kind: str) -> Part:
        file = KeptFile(self._root / "proc/pressure" / kind, 256)
        return Levels((f"pressure_{kind}_share",), lambda: (pressure_share(file.read()),), file.close)

    def _follow(self, thread: int) -> None:
        """Read the thread's files; those of the thread before are left."""
        status = KeptFile(self._root / f"proc/self/task/{thread}/status")
        switches = Rates(
            ("voluntary_switches_per_s",),
            lambda: (number_after(status.read(), b"\nvoluntary_ctxt_switches:"),),
            self._clock,
            close=status.close,
        )
        own = TrainingThread(self._root, thread, self._clock)
        for parts, new in ((self._fast, own), (self._slow, switches)):
            for old in [part for part in parts if part.columns == new.columns]:
                old.close()
                parts.remove(old)
            for column in new.columns:
                self._lost.pop(column, None)
            parts.append(new)
        self._slow_columns |= set(switches.columns)
        self._followed = thread

    def _ask(self, parts: list[Part], values: dict[str, float | int | None], now_ns: int) -> None:
        for part in tuple(parts):
            try:
                values.update(zip(part.columns, part.read(), strict=True))
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one source, the others go on
                parts.remove(part)
                part.close()
                for column in part.columns:
                    self._lost[column] = self.gaps.open(self.table, column, None, _reason(error), now_ns)


def _reason(error: Exception) -> str:
    """Why a source gives nothing; of a file the whole path is no secret: it stands in /proc or /sys."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__
