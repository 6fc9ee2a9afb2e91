"""Clocks of one thread: wall, CPU, and time spent runnable without a core."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

SCHEDSTAT: Final = Path("/proc/thread-self/schedstat")
LONGEST: Final = 96
"""Bytes of its line at most: three whole numbers of 64 bits."""

NO_SCHEDSTAT: Final = "schedstat absent: waiting for a core cannot be told from other waiting on this system"


class RunQueueFile:
    """The line in which Linux says how long a thread was runnable but not running; it is the thread's that opens it.

    Attributes
    ----------
    descriptor
        To be read from its start with `os.pread`: 1 us, where opening and reading takes 20 us. None where the system does not
        tell: no /proc, or a kernel without scheduling statistics, which writes `0 0 0`.
    """

    def __init__(self, path: Path = SCHEDSTAT) -> None:
        self.descriptor: int | None = None
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        fields = os.pread(descriptor, LONGEST, 0).split()
        if len(fields) == 3 and any(int(field) for field in fields):  # noqa: PLR2004 - running, waiting, time slices
            self.descriptor = descriptor
        else:
            os.close(descriptor)

    def reader(self) -> Callable[[], bytes | None]:
        """What reads the line, or None each time where there is none."""
        descriptor = self.descriptor
        if descriptor is None:
            return lambda: None
        read = os.pread
        return lambda: read(descriptor, LONGEST, 0)

    def close(self) -> None:
        """Give the descriptor back."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None


def runqueue_ns(line: bytes | None) -> int | None:
    r"""Time that the thread was runnable without a core so far.

    Examples
    --------
    >>> runqueue_ns(b"5021 730 12\n")
    730
    """
    return None if line is None else int(line.split()[1])
