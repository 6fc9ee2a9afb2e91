"""Limits and usage of the control group that this process runs in: version 2, version 1, or both side by side."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from perfnb.record.host_files import KeptFile, number_after

UNLIMITED_BYTES: Final = 1 << 60
"""From here on a memory limit means none: version 1 writes 2**63 rounded down to a page."""


@dataclass(frozen=True, slots=True)
class Throttling:
    """How a group's quota held it back, since the group was made.

    Attributes
    ----------
    nr_periods
        Periods in which the group wanted to run.
    nr_throttled
        Those in which it used up its quota.
    throttled_us
        Time that its runnable threads were then kept from running, summed over cores.
    """

    nr_periods: int
    nr_throttled: int
    throttled_us: float


class ControlGroup:
    """The control group of this process: what it may use and what it uses.

    A limit may stand at any group above the process's own: the tightest one counts, as it does for the kernel.

    Parameters
    ----------
    root
        Folder that stands for `/`.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._cpu, self._memory = _levels(root, "cpu"), _levels(root, "memory")
        self._throttling_file: KeptFile | None = None
        self._usage_file: KeptFile | None = None
        self._statistics_file: KeptFile | None = None
        self._memory_limit: int | None = None
        self._cpu_limit: float | None = None
        self.refresh()

    def cpu_limit(self) -> float | None:
        """Cores that the tightest quota grants; None where none is set."""
        return self._cpu_limit

    def memory(self) -> tuple[int, int] | None:
        """Bytes in use and limit of the group with the tightest limit; None where none is set.

        File pages that the kernel would drop first (inactive_file) are left out of the use, as the kubelet does: with them
        every job that has read enough files is at its limit.

        Raises
        ------
        OSError
            If the group is gone.
        """
        if self._usage_file is None or self._memory_limit is None:
            return None
        used = int(self._usage_file.read())
        if self._statistics_file is not None:
            try:
                text = self._statistics_file.read()
                name = b"total_inactive_file " if b"total_inactive_file " in text else b"\ninactive_file "
                used = max(used - number_after(text, name), 0)
            except (OSError, ValueError):
                self._statistics_file = None
        return used, self._memory_limit

    def throttling(self) -> Throttling | None:
        """How the group with the tightest quota, else the process's own, was held back; None where the kernel keeps no count.

        Raises
        ------
        OSError
            If the group is gone.
        """
        if self._throttling_file is None:
            return None
        return _throttling(self._throttling_file.read())

    def refresh(self) -> None:
        """Look for the limits anew: they may be changed while a job runs."""
        self.close()
        quotas = [(quota, level) for level in self._cpu if (quota := _quota(level)) is not None]
        self._cpu_limit, tightest = min(quotas, key=lambda found: found[0], default=(None, None))
        candidates = [tightest] if tightest is not None else self._cpu
        self._throttling_file = next((KeptFile(level / "cpu.stat") for level in candidates if _counts_periods(level)), None)
        limits = [(limit, level) for level in self._memory if (limit := _memory_limit(level)) is not None]
        self._memory_limit, group = min(limits, key=lambda found: found[0], default=(None, None))
        self._usage_file = self._statistics_file = None
        if group is not None:
            names = ("memory.current", "memory.usage_in_bytes")
            self._usage_file = next((KeptFile(group / name) for name in names if (group / name).exists()), None)
            self._statistics_file = KeptFile(group / "memory.stat", 1 << 14)

    def close(self) -> None:
        """Give the files back; a later reading opens them again."""
        for file in (self._throttling_file, self._usage_file, self._statistics_file):
            if file is not None:
                file.close()


def cpu_capacity(root: Path = Path("/")) -> float:
    """Cores that this process may use: the fewest of its affinity and its control group's quota.

    Parameters
    ----------
    root
        Folder that stands for `/`.

    Examples
    --------
    >>> 0 < cpu_capacity() <= os.cpu_count()
    True
    """
    return usable_cores(ControlGroup(root).cpu_limit())


def usable_cores(quota: float | None) -> float:
    """The fewer of the cores in this process's affinity and those of a quota."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return float(own) if quota is None else min(float(own), quota)


def _levels(root: Path, controller: str) -> list[Path]:
    """Folders of the groups of a controller that hold this process, innermost first; version 1's before version 2's."""
    found: list[Path] = []
    paths = _paths(root)
    for path, mount, inside in (
        (paths.get(controller), *_mount(root, controller)),
        (paths.get(""), *_mount(root, "")),
    ):
        if path is not None:
            found.extend(_upwards(root / mount.lstrip("/"), _below(path, inside)))
    return found


def _paths(root: Path) -> dict[str, str]:
    """Controller ("" for version 2) to the group's path, from /proc/self/cgroup."""
    paths = {}
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        paths.update(dict.fromkeys(controllers.split(","), path))
    return paths


def _mount(root: Path, controller: str) -> tuple[str, str]:
    """Where a controller's tree is mounted, and which group of it is at that place, from /proc/self/mountinfo."""
    for line in _lines(root / "proc/self/mountinfo"):
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        is_it = kind == "cgroup2" if not controller else kind == "cgroup" and controller in options.split(",")
        if is_it:
            inside, mount = left.split(" ")[3:5]
            return mount, inside
    return f"/sys/fs/cgroup/{controller}", "/"  # where every distribution has it


def _below(path: str, inside: str) -> PurePosixPath:
    """Path of a group relative to the mounted one; outside of it, as in a container that sees the host's paths: itself."""
    group = PurePosixPath(path)
    return group.relative_to(inside) if group.is_relative_to(inside) and ".." not in group.parts else PurePosixPath()


def _upwards(mount: Path, group: PurePosixPath) -> Iterator[Path]:
    if not (mount / group).is_dir():
        group = PurePosixPath()
    while True:
        if (mount / group).is_dir():
            yield mount / group
        if not group.parts:
            return
        group = group.parent


def _quota(level: Path) -> float | None:
    words = _words(level / "cpu.max") or _words(level / "cpu.cfs_quota_us") + _words(level / "cpu.cfs_period_us")
    try:
        quota, period = map(int, words)
    except ValueError:  # "max", or neither file
        return None
    return quota / period if quota > 0 and period > 0 else None


def _memory_limit(level: Path) -> int | None:
    words = _words(level / "memory.max") or _words(level / "memory.limit_in_bytes")
    limit = int(words[0]) if words and words[0].isdecimal() else UNLIMITED_BYTES
    return limit if limit < UNLIMITED_BYTES else None


def _counts_periods(level: Path) -> bool:
    return "nr_periods" in _words(level / "cpu.stat")


def _throttling(text: bytes) -> Throttling:
    in_us = b"throttled_usec " in text  # version 2; version 1 has throttled_time in nanoseconds
    time_us = number_after(text, b"throttled_usec ") if in_us else number_after(text, b"throttled_time ") / 1000
    return Throttling(number_after(text, b"nr_periods "), number_after(text, b"nr_throttled "), float(time_us))


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
