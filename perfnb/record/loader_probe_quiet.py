"""How busy others keep this machine, and waiting until they do not: times taken on a contended host tell of the contention."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from perfnb.record.cgroup import ControlGroup, usable_cores
from perfnb.record.host_files import pressure_share, running_and_waiting_ns

LARGEST_PRESSURE: Final = 0.2
LARGEST_FOREIGN_CORES: Final = 0.25
"""What-if contract, section 3: probes taken above either were off by +110 to +154 % on one machine."""

LARGEST_DELAY_SHARE: Final = 0.05
"""Pressure comes of all that waits on the host, also of niced work that gives way: where this thread, while it computes, waits
for a core for less than this share of its time, the pressure is that of others. A choice."""

WINDOW_S: Final = 0.5
_SPIN_S: Final = 0.02
_TICKS: Final = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


class Load(NamedTuple):
    """What others did to the machine over some time.

    Attributes
    ----------
    pressure_share
        Share of the last 10 s in which some task of the host waited for a core (PSI "some"); NaN where it is not told.
    foreign_cores
        Cores that other processes used, as far as they must have used those that this process may use; niced ones, which give
        way, do not count unless this process is niced itself.
    delay_share
        Share of its own time, computing and waiting for a core, in which this thread waited; NaN where it is not told.
    """

    pressure_share: float
    foreign_cores: float
    delay_share: float = math.nan

    @property
    def is_quiet(self) -> bool:
        """Whether times taken now tell of the work alone; unknown pressure counts as none."""
        is_pressed = self.pressure_share > LARGEST_PRESSURE and not self.delay_share <= LARGEST_DELAY_SHARE
        return not is_pressed and self.foreign_cores <= LARGEST_FOREIGN_CORES

    def __str__(self) -> str:
        """Both figures in words."""
        pressure = "not told" if math.isnan(self.pressure_share) else f"{self.pressure_share:.0%}"
        cores = f"{self.foreign_cores:.2f}"
        delay = "" if math.isnan(self.delay_share) else f", this process waiting for a core {self.delay_share:.0%} of its time"
        return (
            f"CPU pressure {pressure} (at most {LARGEST_PRESSURE:.0%}){delay}, other processes on {cores} cores "
            f"(at most {LARGEST_FOREIGN_CORES})"
        )


class LoadMeter:
    """Measures the load by others from one reading to the next.

    Parameters
    ----------
    root
        Folder that stands for `/`.
    clock
        Seconds of a monotonic clock.
    """

    def __init__(self, root: Path = Path("/"), clock: Callable[[], float] = time.monotonic) -> None:
        self._root, self._clock = root, clock
        self._capacity = usable_cores(ControlGroup(root).cpu_limit())
        self._before = self._now()

    def read(self) -> Load:
        """The load since the reading before, or since the meter was made."""
        before, self._before = self._before, self._now()
        elapsed = max(self._before[0] - before[0], 1e-9)
        busy, own, ran, waited = (now - then for now, then in zip(self._before[1:], before[1:], strict=True))
        elsewhere = max((os.cpu_count() or 1) - self._capacity, 0.0)  # cores that only others may use
        delay = waited / (ran + waited) if ran + waited > 0.0 else math.nan
        return Load(self._pressure(), max((busy - own) / elapsed - elsewhere, 0.0), delay)

    def _now(self) -> tuple[float, float, float, float, float]:
        """The clock, busy seconds of all cores, CPU seconds of this process, seconds that this thread ran and waited to run."""
        own = os.times()
        try:
            ran, waited = running_and_waiting_ns((self._root / "proc/thread-self/schedstat").read_bytes())
        except (OSError, ValueError):
            ran, waited = 0, 0
        used = own.user + own.system + own.children_user + own.children_system
        return self._clock(), self._busy_s(), used, ran / 1e9, waited / 1e9

    def _busy_s(self) -> float:
        is_low = hasattr(os, "getpriority") and os.getpriority(os.PRIO_PROCESS, 0) > 0
        try:
            fields = (self._root / "proc/stat").read_bytes().split(b"\n", 1)[0].split()[1:9]
        except OSError:
            import psutil  # noqa: PLC0415 - only where there is no /proc

            times = psutil.cpu_times()
            nice = 0.0 if is_low else getattr(times, "nice", 0.0)
            return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - nice)
        user, nice, system, _, _, *rest = map(int, fields)
        return (user + (nice if is_low else 0) + system + sum(rest)) / _TICKS

    def _pressure(self) -> float:
        try:
            return pressure_share((self._root / "proc/pressure/cpu").read_bytes())
        except (OSError, ValueError):
            return float("nan")


def wait_until_quiet(
    longest_s: float,
    meter: LoadMeter,
    *,
    sleep: Callable[[float], None] = time.sleep,
    waited: Callable[[float], object] = lambda _seconds: None,
) -> Load:
    """The load of the last window: the first quiet one, or that at the end of the time.

    Parameters
    ----------
    longest_s
        Seconds to wait at most; one window is looked at in any case.
    meter
        Measures the windows.
    sleep
        Passes the time of a window.
    waited
        Told the seconds of each window, for a progress bar.
    """
    spent = 0.0
    meter.read()
    while True:
        sleep(WINDOW_S)
        _spin()
        waited(WINDOW_S)
        spent += WINDOW_S
        load = meter.read()
        if load.is_quiet or spent >= longest_s:
            return load


def _spin() -> None:
    """Compute for a moment, so that the meter sees whether this thread has to wait for a core."""
    end = time.perf_counter() + _SPIN_S
    while time.perf_counter() < end:
        pass
