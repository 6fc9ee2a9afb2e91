"""How busy others keep this machine, and waiting until they do not: times taken on a contended host tell of the contention."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from perfnb.record.cgroup import ControlGroup, usable_cores
from perfnb.record.host_files import pressure_share

LARGEST_PRESSURE: Final = 0.2
LARGEST_FOREIGN_CORES: Final = 0.25
"""What-if contract, section 3: probes taken above either were off by +110 to +154 % on one machine."""

WINDOW_S: Final = 0.5
_TICKS: Final = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


class Load(NamedTuple):
    """What others did to the machine over some time.

    Attributes
    ----------
    pressure_share
        Share of the last 10 s in which some task of the host waited for a core (PSI "some"); NaN where it is not told.
    foreign_cores
        Cores that other processes used, as far as they must have used those that this process may use.
    """

    pressure_share: float
    foreign_cores: float

    @property
    def is_quiet(self) -> bool:
        """Whether times taken now tell of the work alone; unknown pressure counts as none."""
        return not self.pressure_share > LARGEST_PRESSURE and self.foreign_cores <= LARGEST_FOREIGN_CORES

    def __str__(self) -> str:
        """Both figures in words."""
        pressure = "not told" if math.isnan(self.pressure_share) else f"{self.pressure_share:.0%}"
        cores = f"{self.foreign_cores:.2f}"
        return (
            f"CPU pressure {pressure} (at most {LARGEST_PRESSURE:.0%}), other processes on {cores} cores "
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
        busy, own = ((self._before[place] - before[place]) / elapsed for place in (1, 2))
        elsewhere = max((os.cpu_count() or 1) - self._capacity, 0.0)  # cores that only others may use
        return Load(self._pressure(), max(busy - own - elsewhere, 0.0))

    def _now(self) -> tuple[float, float, float]:
        """The clock, busy seconds of all cores, and CPU seconds of this process and its children that ended or are known."""
        own = os.times()
        return self._clock(), self._busy_s(), own.user + own.system + own.children_user + own.children_system

    def _busy_s(self) -> float:
        try:
            fields = (self._root / "proc/stat").read_bytes().split(b"\n", 1)[0].split()[1:9]
        except OSError:
            import psutil  # noqa: PLC0415 - only where there is no /proc

            times = psutil.cpu_times()
            return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))
        user, nice, system, _, _, *rest = map(int, fields)
        return (user + nice + system + sum(rest)) / _TICKS

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
        waited(WINDOW_S)
        spent += WINDOW_S
        load = meter.read()
        if load.is_quiet or spent >= longest_s:
            return load
