"""The machine under the measurements: what it is, whether it is quiet, and how long a thread waited for a core."""

import os
import platform
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

QUIET_PRESSURE_PERCENT = 8.0
QUIET_BUSY_CORES = 0.3
PATIENCE_S = 240.0


class NoisyHostError(RuntimeError):
    """The machine was too busy with other work to measure on."""


class RunQueueClock:
    """Time that the calling thread was runnable but not running, since the first reading."""

    def __init__(self) -> None:
        # One descriptor, read in place: it belongs to the thread that opens it.
        self._descriptor = os.open("/proc/thread-self/schedstat", os.O_RDONLY)

    def read_us(self) -> float:
        """Microseconds of waiting for a core so far."""
        return int(os.pread(self._descriptor, 96, 0).split()[1]) / 1e3

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._descriptor)


def cpu_pressure_percent() -> float:
    """Share of the last 10 s in which some task waited for a core, in percent, as the kernel reports it."""
    text = Path("/proc/pressure/cpu").read_text()
    match = re.search(r"some avg10=([\d.]+)", text)
    return float(match.group(1)) if match else 0.0


def busy_cores(over_s: float = 1.0) -> float:
    """Cores that others use while this process sleeps, time stolen by the hypervisor included."""
    first = _cpu_ticks()
    time.sleep(over_s)
    passed = [after - before for before, after in zip(first, _cpu_ticks(), strict=True)]
    idle = passed[3] + passed[4]
    return (1 - idle / max(sum(passed), 1)) * (os.cpu_count() or 1)


def stolen_s() -> float:
    """Seconds that the hypervisor took from this machine's cores so far."""
    return _cpu_ticks()[7] / os.sysconf("SC_CLK_TCK")


def _cpu_ticks() -> list[int]:
    line = Path("/proc/stat").read_text().split("\n", 1)[0]
    return [int(field) for field in line.split()[1:9]]


def wait_until_quiet(needed_cores: int) -> None:
    """Return once nobody waits for a core and enough cores are free.

    Parameters
    ----------
    needed_cores
        Cores that the coming measurement keeps busy.

    Raises
    ------
    NoisyHostError
        If it stays busy for four minutes.
    """
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        free_cores = capacity_cores() - busy_cores()
        if cpu_pressure_percent() < QUIET_PRESSURE_PERCENT and free_cores >= needed_cores - QUIET_BUSY_CORES:
            return
        time.sleep(2)
    message = (
        f"the machine stayed busy for {PATIENCE_S:.0f} s (cpu pressure {cpu_pressure_percent():.0f} %, "
        f"others use {busy_cores():.1f} cores): stop other work and record again"
    )
    raise NoisyHostError(message)


def describe_machine() -> dict[str, Any]:
    """The machine without anything that names it: processor, cores, memory, and the cores this process may use."""
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu_model": model.group(1).strip() if model else platform.machine(),
        "logical_cpus": os.cpu_count(),
        "memory_gb": round(pages / 2**30, 1),
        "capacity_cores": capacity_cores(),
    }


def capacity_cores() -> float:
    """Cores this process may use: its affinity, or the quota of its control group where that is smaller."""
    cores = float(len(os.sched_getaffinity(0)))
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.exists():
        limit, period = quota.read_text().split()[:2]
        if limit != "max":
            cores = min(cores, int(limit) / int(period))
    return cores


def describe_versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    return {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
