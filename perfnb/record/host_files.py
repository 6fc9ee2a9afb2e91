"""Files of /proc that are read again and again: kept open, and parsed for what is wanted only."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

CLOCK_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
SECTOR_BYTES: Final = 512  # Documentation/admin-guide/iostats.rst: whatever the device's own sector is

_COUNTED_ELSEWHERE: Final = re.compile(r"(?:loop|ram|zram|dm-|md|sr|fd)\d|nvme\d+c\d+n\d")
"""Block devices that are memory, or whose transfers are counted at the device below them."""
_WHOLE_DISK: Final = re.compile(r"(?:sd|vd|xvd|hd)[a-z]+|(?:nvme\d+n|mmcblk|nbd|rbd)\d+")


class KeptFile:
    """A file that is opened at the first reading and read from its beginning each time.

    It is read without giving up the interpreter's lock: /proc answers in microseconds, and each time this thread gave the
    lock up, it would have to take it from a thread that trains again, which costs both of them more than the reading.

    Parameters
    ----------
    path
        The file.
    size
        Bytes that are read at most.
    """

    __slots__ = ("_buffer", "_descriptor", "_path", "_size")

    def __init__(self, path: Path, size: int = 4096) -> None:
        self._path = path
        self._size = size
        self._buffer = ctypes.create_string_buffer(size)
        self._descriptor = -1

    def read(self) -> bytes:
        """What it holds now.

        Raises
        ------
        OSError
            If it cannot be read, or what it told of is gone.
        """
        if self._descriptor < 0:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        if _pread is None:
            return os.pread(self._descriptor, self._size, 0)
        count = _pread(self._descriptor, self._buffer, self._size, 0)
        if count < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(self._path))
        return ctypes.string_at(self._buffer, count)

    def close(self) -> None:
        """Give the descriptor back; a later reading opens it again."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    __del__ = close


def _pread_with_the_lock() -> Callable[[int, ctypes.Array[ctypes.c_char], int, int], int] | None:
    """The C library's pread, called without releasing the interpreter's lock; None where it has no such name."""
    try:
        function = ctypes.PyDLL(None, use_errno=True).pread
    except (AttributeError, OSError, TypeError):  # Windows loads nothing without a name
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long]  # read from 0: off_t's width is no matter
    function.restype = ctypes.c_ssize_t
    return function


_pread: Final = _pread_with_the_lock()


def busy_and_total(stat: bytes) -> tuple[int, int]:
    r"""Busy and whole time of all cores, in ticks, from /proc/stat.

    Examples
    --------
    >>> busy_and_total(b"cpu  10 0 5 80 4 0 1 0 0 0\ncpu0 ...")
    (16, 100)
    """
    user, nice, system, idle, waiting, *rest = map(int, stat[: stat.index(b"\n")].split()[1:9])  # guests are in user and nice
    total = user + nice + system + idle + waiting + sum(rest)
    return total - idle - waiting, total


def niced(stat: bytes) -> int:
    r"""Time of processes of lower than normal priority, of all cores, in ticks, from /proc/stat.

    Examples
    --------
    >>> niced(b"cpu  10 7 5 80 4 0 1 0 0 0\ncpu0 ...")
    7
    """
    return int(stat.split(None, 3)[2])


def process_state(stat: bytes) -> tuple[int, int, int]:
    """CPU in ticks, number of threads and resident bytes of a process, from /proc/PID/stat.

    Examples
    --------
    >>> line = b"7 (a (b) c) S 1 7 7 0 -1 0 0 0 0 0 30 12 0 0 20 0 9 0 100 4096 2 0"
    >>> process_state(line) == (42, 9, 2 * PAGE_BYTES)
    True
    """
    fields = stat[stat.rindex(b")") + 2 :].split(None, 22)  # the name may hold anything; field 3 of proc(5) is the first here
    return int(fields[11]) + int(fields[12]), int(fields[17]), int(fields[21]) * PAGE_BYTES


def running_and_waiting_ns(schedstat: bytes) -> tuple[int, int]:
    r"""Time on a core and time waiting for one, of a thread.

    Raises
    ------
    ValueError
        If the kernel keeps no such times: it writes zeros.

    Examples
    --------
    >>> running_and_waiting_ns(b"700 30 2\n")
    (700, 30)
    """
    running, waiting, slices = map(int, schedstat.split())
    if not (running or waiting or slices):
        message = "schedstat absent: the kernel keeps no scheduling times"
        raise ValueError(message)
    return running, waiting


def storage_and_calls(io: bytes) -> tuple[int, int, int, int]:
    r"""Bytes read and written, at the storage and through system calls, from /proc/PID/io.

    Examples
    --------
    >>> storage_and_calls(b"rchar: 1\nwchar: 2\nsyscr: 3\nsyscw: 4\nread_bytes: 5\nwrite_bytes: 6\n")
    (5, 6, 1, 2)
    """
    fields = io.split()
    return int(fields[9]), int(fields[11]), int(fields[1]), int(fields[3])


def number_after(text: bytes, name: bytes) -> int:
    """The number behind a name, as in `MemTotal:  16 kB` or `pswpin 0`.

    Raises
    ------
    ValueError
        If the name is not there.
    """
    start = text.index(name) + len(name)
    return int(text[start : start + 32].split(None, 1)[0])


def pressure_share(pressure: bytes) -> float:
    r"""Share of the last 10 s in which some task waited, from a file of /proc/pressure.

    Examples
    --------
    >>> pressure_share(b"some avg10=2.50 avg60=5.05 avg300=4.61 total=18\n")
    0.025
    """
    start = pressure.index(b"avg10=") + 6
    return float(pressure[start : pressure.index(b" ", start)]) / 100


class Disks:
    """Bytes that the host's disks moved, from /proc/diskstats: whole disks, each counted once.

    Parameters
    ----------
    root
        Folder that stands for `/`.
    """

    def __init__(self, root: Path) -> None:
        self._file = KeptFile(root / "proc/diskstats", 1 << 16)
        self._blocks = root / "sys/block"
        self._is_counted: dict[bytes, bool] = {}

    def read(self) -> tuple[int, int]:
        """Bytes read and written since the system started."""
        read = written = 0
        for line in self._file.read().splitlines():
            fields = line.split(None, 10)
            if self._counts(fields[2]):
                read += int(fields[5])
                written += int(fields[9])
        return read * SECTOR_BYTES, written * SECTOR_BYTES

    def close(self) -> None:
        """Give the file back."""
        self._file.close()

    def _counts(self, device: bytes) -> bool:
        known = self._is_counted.get(device)
        if known is None:
            name = os.fsdecode(device)
            is_whole = (self._blocks / name.replace("/", "!")).exists() if self._blocks.exists() else _WHOLE_DISK.fullmatch(name)
            known = self._is_counted[device] = bool(is_whole) and not _COUNTED_ELSEWHERE.match(name)
        return known


class Interfaces:
    """Bytes over the host's network, from /proc/net/dev.

    Real interfaces where there are any, since bridges, bonds and tunnels count the same bytes again; else all but lo, as in
    a container. Traffic that a card moves by itself (RDMA) is not in it.

    Parameters
    ----------
    root
        Folder that stands for `/`.
    """

    def __init__(self, root: Path) -> None:
        self._file = KeptFile(root / "proc/net/dev", 1 << 16)
        self._classes = root / "sys/class/net"
        self._counted: tuple[frozenset[bytes], frozenset[bytes]] = frozenset(), frozenset()

    def read(self) -> tuple[int, int]:
        """Bytes received and sent since the system started."""
        found = {}
        for line in self._file.read().splitlines()[2:]:
            name, _, numbers = line.partition(b":")
            fields = numbers.split(None, 9)
            found[name.strip()] = int(fields[0]), int(fields[8])
        if found.keys() != self._counted[0]:
            self._counted = frozenset(found), self._choose(found)
        chosen = [found[name] for name in self._counted[1]]
        return sum(received for received, _ in chosen), sum(sent for _, sent in chosen)

    def close(self) -> None:
        """Give the file back."""
        self._file.close()

    def _choose(self, names: Iterable[bytes]) -> frozenset[bytes]:
        outside = [name for name in names if name != b"lo"]
        real = [name for name in outside if (self._classes / os.fsdecode(name) / "device").exists()]
        return frozenset(real or outside)
