"""A run folder that is being written: one folder per rank, files that only grow, nothing lost but what was not yet appended."""

from __future__ import annotations

import os
import shutil
import threading
import time
import weakref
from collections.abc import Iterable, Mapping
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Any, Final, NoReturn

from perfnb.errors import RecordingError
from perfnb.record.json_rows import document, lines
from perfnb.record.rank_lock import FolderTakenError, RankLock
from perfnb.record.rows import COLUMNS
from perfnb.record.sink import Row

HEADER, END, ROWS = "header.json", "end.json", ".jsonl"
"""Names in a rank's folder: what holds throughout, how it ended, and the suffix of the rows of a table."""

_LIVE: Final[weakref.WeakSet[FolderSink]] = weakref.WeakSet()
_FORK_HOOKED: Final = threading.Event()


class FolderSink:
    """Rows in FOLDER/rank<R>/<table>.jsonl, one JSON array per line. Implements `perfnb.record.sink.Sink`.

    An append is one write of whole lines at the end of a file, so that a process that is killed loses no row that was
    appended. (A machine that loses power may: files are not forced to disk.) What cannot be written is counted and kept as a
    state, never raised. A child process that inherits the sink by fork writes nothing.

    Parameters
    ----------
    folder
        The run's folder; made if it does not exist.
    header
        See `perfnb.record.header.header`; its rank names the folder.
    overwrite
        Whether an earlier recording of the rank in that folder is replaced; one that is still written to never is.

    Attributes
    ----------
    header
        As given.
    rank_folder
        Where the files are: the place for traces of a profiler window too.
    failed_with
        Why rows could not be written; "" while all could.
    dropped
        Table to the number of its rows that were not written.

    Raises
    ------
    RecordingError
        If another process records this rank into the folder, it holds an earlier recording, or it cannot be written.
    """

    def __init__(self, folder: str | PathLike[str], header: Mapping[str, Any], *, overwrite: bool = False) -> None:
        self.header = header
        self.rank_folder = Path(folder) / f"rank{int(header['rank'])}"
        self.failed_with = ""
        self.dropped: dict[str, int] = {}
        self._process = os.getpid()
        self._descriptors: dict[str, int] = {}
        self._torn: set[str] = set()
        self._is_closed = False
        self._guard = threading.Lock()
        try:
            self._lock = _started(self.rank_folder, document(header), overwrite=overwrite)
        except FolderTakenError as error:
            message = f"{self.rank_folder} is being written by {error}: stop that recording or choose another folder"
            raise RecordingError(message) from error
        except OSError as error:
            message = f"cannot record into {self.rank_folder}: {error}; choose a folder that can be written"
            raise RecordingError(message) from error
        _hook_fork()
        _LIVE.add(self)

    def append(self, table: str, rows: Iterable[Row]) -> None:
        """See `Sink`."""
        if os.getpid() != self._process:
            return
        text, count, unwritable = lines(rows)
        with self._guard:
            if unwritable:
                self._drop(table, unwritable, "a value that cannot be written as JSON")
            if not count:
                return
            if self._is_closed or table not in COLUMNS:
                self._drop(table, count, "the recording had ended" if self._is_closed else f"no table is named {table!r}")
                return
            try:
                self._write(table, text)
            except OSError as error:
                self._drop(table, count, error.strerror or str(error))

    def close(self, state: str, reason: str) -> None:
        """See `Sink`. A second call does nothing."""
        if os.getpid() != self._process:
            return
        with self._guard:
            if self._is_closed:
                return
            self._is_closed = True
            end = {"state": state, "reason": reason, "wall_ns": time.time_ns(), "monotonic_ns": time.perf_counter_ns()}
            end |= {"failed_with": self.failed_with, "dropped": self.dropped}
            try:
                _write_whole(self.rank_folder / END, document(end))
            except OSError as error:
                self.failed_with = self.failed_with or error.strerror or str(error)
            self._close_rows()
            self._lock.release()

    def _write(self, table: str, text: bytes) -> None:
        descriptor = self._descriptors.get(table)
        if descriptor is None:
            path = self.rank_folder / f"{table}{ROWS}"
            descriptor = self._descriptors[table] = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        if table in self._torn:  # ends the torn line, which a reader then skips
            text = b"\n" + text
        written = os.write(descriptor, text)
        if written == len(text):
            self._torn.discard(table)
            return
        try:  # a full disk takes a part: back to the last whole append
            os.ftruncate(descriptor, os.fstat(descriptor).st_size - written)
        except OSError:
            self._torn.add(table)
        message = "no space left for all rows"
        raise OSError(message)

    def _drop(self, table: str, count: int, why: str) -> None:
        self.failed_with = self.failed_with or why
        self.dropped[table] = self.dropped.get(table, 0) + count

    def _close_rows(self) -> None:
        while self._descriptors:
            with suppress(OSError):
                os.close(self._descriptors.popitem()[1])

    def _leave(self) -> None:
        """In a child after fork: let go of the parent's files."""
        self._close_rows()
        self._lock.close_copy()


def _started(rank_folder: Path, header: bytes, *, overwrite: bool) -> RankLock:
    """Lock of a rank's folder that holds the new header and nothing else."""
    rank_folder.mkdir(parents=True, exist_ok=True)
    lock = RankLock(rank_folder)
    try:
        if not _holds_recording(rank_folder):
            _write_whole(rank_folder / HEADER, header)
            return lock
        if not overwrite:
            _refuse(rank_folder)
        replacement = _replaced(rank_folder, header)
    except BaseException:
        lock.release()
        raise
    lock.close_copy()
    return replacement


def _refuse(rank_folder: Path) -> NoReturn:
    how = "one that ended" if (rank_folder / END).exists() else "one that was killed"
    message = (
        f"{rank_folder} holds an earlier recording, {how}: choose another folder, read it with perfnb.read_run, "
        "or pass overwrite=True to replace it"
    )
    raise RecordingError(message)


def _replaced(rank_folder: Path, header: bytes) -> RankLock:
    """Lock of a new folder that took the place of an earlier recording, which is deleted once the new header is safe."""
    new, old = (rank_folder.with_name(f".{rank_folder.name}.{what}.{os.getpid()}") for what in ("new", "old"))
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    lock = RankLock(new)
    try:
        _write_whole(new / HEADER, header)
        rank_folder.rename(old)
        try:
            new.rename(rank_folder)
        except OSError:
            old.rename(rank_folder)
            raise
    except BaseException:
        lock.release()
        shutil.rmtree(new, ignore_errors=True)
        raise
    lock.moved(rank_folder)
    shutil.rmtree(old, ignore_errors=True)
    return lock


def _holds_recording(rank_folder: Path) -> bool:
    return (rank_folder / HEADER).exists() or any(rank_folder.glob(f"*{ROWS}"))


def _write_whole(path: Path, text: bytes) -> None:
    """Write a file so that it is seen whole or not at all."""
    neighbour = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        neighbour.write_bytes(text)
        neighbour.replace(path)
    except OSError:
        with suppress(OSError):
            neighbour.unlink(missing_ok=True)
        raise


def _hook_fork() -> None:
    """Once per process: a child lets go of the files of all sinks, so that its life says nothing about the recording."""
    if not _FORK_HOOKED.is_set() and hasattr(os, "register_at_fork"):
        _FORK_HOOKED.set()
        os.register_at_fork(after_in_child=_leave_all)


def _leave_all() -> None:
    for sink in list(_LIVE):
        sink._leave()  # noqa: SLF001 - of this module's own class
