"""The lock of a rank folder: one writer at a time, and whether there is one."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import msgspec

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK, PROCESS_FILE = "lock", "lock.pid"
"""The file that is locked; the file that stands for a lock where the system or the file system has none."""

_ATTEMPTS: Final = 6  # a reader holds the lock for an instant to see whether it is free
_PAUSE_S: Final = 0.02
_FRESH_S: Final = 10.0  # twenty times the recorder's longest pause between two writes
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_PROCESS_NUMBERS: Final = "/proc/self/ns/pid"  # numbers of processes are comparable within one such name space


class FolderTakenError(Exception):
    """Another writer holds the folder; its text says which."""


class RankLock:
    """An exclusive lock on a folder, kept until it is released or the process ends, however it ends.

    Raises
    ------
    FolderTakenError
        If another writer holds it.
    OSError
        If the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.descriptor: int | None = _locked(folder)
        self._process_file: Path | None = None
        if self.descriptor is None:
            self._process_file = folder / PROCESS_FILE
            _create_process_file(self._process_file)
            return
        with suppress(OSError):  # on a full disk it is a lock without a name
            os.ftruncate(self.descriptor, 0)
            os.write(self.descriptor, _own_name())

    def release(self) -> None:
        """Let others have the folder."""
        self.close_copy()
        if self._process_file is not None:
            with suppress(OSError):
                self._process_file.unlink()

    def moved(self, folder: Path) -> None:
        """The folder has another name now."""
        if self._process_file is not None:
            self._process_file = folder / self._process_file.name

    def close_copy(self) -> None:
        """Close this process's copy of the lock: in a child it would hold the folder after its parent was killed."""
        if self.descriptor is not None:
            with suppress(OSError):
                os.close(self.descriptor)
            self.descriptor = None


def is_held(folder: Path) -> bool:
    """Whether a writer holds the folder."""
    by_lock = _is_locked(folder / LOCK)
    if by_lock is True:  # by a child that outlives its parent, if that is known to be dead
        return _is_alive(_holder(folder / LOCK)) is not False
    if by_lock is False and not (folder / PROCESS_FILE).exists():
        return False
    alive = _is_alive(_holder(folder / PROCESS_FILE))
    return alive if alive is not None else _is_fresh(folder)


def _locked(folder: Path) -> int | None:
    """Descriptor of the locked file; None where there are no such locks."""
    if fcntl is None:
        return None
    path = folder / LOCK
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE_S)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        except OSError:  # the file system has no locks
            os.close(descriptor)
            return None
        with suppress(OSError):
            if path.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        os.close(descriptor)  # the folder was replaced in between
    raise FolderTakenError(_named(_holder(path)))


def _create_process_file(path: Path) -> None:
    if path.exists() and _is_alive(_holder(path)) is False:
        path.unlink(missing_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError as error:
        message = f"{_named(_holder(path))}; if it has ended, delete {path}"
        raise FolderTakenError(message) from error
    try:
        os.write(descriptor, _own_name())
    finally:
        os.close(descriptor)


def _is_locked(path: Path) -> bool | None:
    """Whether another holds the lock; None where that cannot be asked."""
    if fcntl is None:
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return False


def _own_name() -> bytes:
    return msgspec.json.encode({"process": os.getpid(), "since_ns": time.time_ns(), "place": _place()})


def _place() -> list[str]:
    """What must agree for the number of a process to mean the same process."""
    boot = numbers = ""
    with suppress(OSError):
        boot = _BOOT.read_text(encoding="ascii").strip()
    with suppress(OSError):
        numbers = str(Path(_PROCESS_NUMBERS).readlink())
    return [socket.gethostname(), boot, numbers]


def _holder(path: Path) -> Mapping[str, Any]:
    try:
        read = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return {}
    return read if isinstance(read, dict) else {}


def _named(holder: Mapping[str, Any]) -> str:
    process, since = holder.get("process"), holder.get("since_ns")
    if not isinstance(process, int) or not isinstance(since, int):
        return "another process"
    with suppress(OverflowError, OSError, ValueError):
        return f"process {process} since {datetime.fromtimestamp(since / 1e9, tz=UTC):%Y-%m-%d %H:%M:%S} UTC"
    return f"process {process}"


def _is_alive(holder: Mapping[str, Any]) -> bool | None:
    """Whether the process of that name is alive; None where it cannot be asked from here."""
    process = holder.get("process")
    if not isinstance(process, int) or process <= 0 or holder.get("place") != _place():
        return None
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is another user's
        return True
    return True


def _is_fresh(folder: Path) -> bool:
    """Whether a file of the folder was written to just now."""
    newest = 0.0
    with suppress(OSError):
        newest = max((each.stat().st_mtime for each in folder.glob("*.jsonl")), default=0.0)
    return abs(time.time() - newest) < _FRESH_S
