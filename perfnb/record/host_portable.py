"""Parts of a row about the host where there is no /proc, as on macOS: what psutil gives of them."""

from __future__ import annotations

from collections.abc import Sequence

from perfnb.record.cgroup import usable_cores
from perfnb.record.host_parts import Clock, Levels, Part, Rates, Value
from perfnb.record.host_workers import Workers

NO_PROC = "this system has no /proc"


class BusyHost:
    """Busy share of all cores of the host."""

    columns = ("cpu_share",)

    def __init__(self) -> None:
        self._before: tuple[float, float] | None = None

    def read(self) -> Sequence[Value]:
        """See `Part`."""
        import psutil  # noqa: PLC0415 - only where it is used

        times = psutil.cpu_times()
        total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)  # they are in user and nice
        now = total - times.idle - getattr(times, "iowait", 0.0), total
        before, self._before = self._before, now
        if before is None or now[1] <= before[1]:
            return (None,)
        return (min(max((now[0] - before[0]) / (now[1] - before[1]), 0.0), 1.0),)

    def close(self) -> None:
        """See `Part`."""


class PortableWorkers:
    """Loader workers alive, their CPU and memory.

    Parameters
    ----------
    workers
        Where their numbers are said.
    clock
        Nanoseconds.
    """

    columns = ("workers", "worker_cpu_cores", "worker_memory_bytes")

    def __init__(self, workers: Workers, clock: Clock) -> None:
        self._workers, self._clock = workers, clock
        self._before: tuple[int, dict[int, float]] | None = None

    def read(self) -> Sequence[Value]:
        """See `Part`."""
        import psutil  # noqa: PLC0415 - only where it is used

        if self._workers.named is None:
            return None, None, None
        now_ns, cpu_s, resident = self._clock(), {}, 0
        for pid in self._workers.named:
            try:
                process = psutil.Process(pid)
                times = process.cpu_times()
                resident += process.memory_info().rss
            except psutil.Error:  # it has ended, or is not ours to look at
                continue
            cpu_s[pid] = times.user + times.system
        before, self._before = self._before, (now_ns, cpu_s)
        if before is None or now_ns <= before[0]:
            return len(cpu_s), None, resident
        grown = sum(max(after - before[1].get(pid, after), 0.0) for pid, after in cpu_s.items())
        return len(cpu_s), grown * 1e9 / (now_ns - before[0]), resident

    def close(self) -> None:
        """See `Part`."""


def fast_parts(workers: Workers, clock: Clock) -> list[Part]:
    """Parts of every row; psutil lists no processes here, it asks those it is told."""
    return [BusyHost(), PortableWorkers(workers, clock), Levels(("own_memory_bytes", "own_threads"), _own)]


def slow_parts(clock: Clock) -> list[Part]:
    """Parts of a row a second."""
    return [
        Levels(("load_1m",), _load),
        Levels(("cgroup_cpu_limit",), lambda: (usable_cores(None),)),
        Levels(("memory_bytes", "memory_limit_bytes"), _memory),
        Rates(("disk_read_bytes_per_s", "disk_write_bytes_per_s"), _disks, clock),
        Rates(("network_receive_bytes_per_s", "network_send_bytes_per_s"), _network, clock),
        Rates(("swap_in_bytes_per_s",), _swap, clock),
    ]


def _own() -> Sequence[Value]:
    import psutil  # noqa: PLC0415 - only where it is used

    process = psutil.Process()
    return process.memory_info().rss, process.num_threads()


def _load() -> Sequence[Value]:
    import psutil  # noqa: PLC0415 - only where it is used

    return (psutil.getloadavg()[0],)


def _memory() -> Sequence[Value]:
    import psutil  # noqa: PLC0415 - only where it is used

    memory = psutil.virtual_memory()
    return memory.total - memory.available, memory.total


def _disks() -> Sequence[float]:
    import psutil  # noqa: PLC0415 - only where it is used

    counters = psutil.disk_io_counters()
    if counters is None:
        message = "this system counts no transfers of disks"
        raise OSError(message)
    return counters.read_bytes, counters.write_bytes


def _network() -> Sequence[float]:
    import psutil  # noqa: PLC0415 - only where it is used

    outside = [counters for name, counters in psutil.net_io_counters(pernic=True).items() if name not in ("lo", "lo0")]
    return sum(counters.bytes_recv for counters in outside), sum(counters.bytes_sent for counters in outside)


def _swap() -> Sequence[float]:
    import psutil  # noqa: PLC0415 - only where it is used

    return (psutil.swap_memory().sin,)
