"""Memory snapshots of a training on a GPU: on demand, and by themselves at the moment when memory runs out."""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import weakref
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from perfnb.errors import RecordingError

MOST_ENTRIES: Final = 200_000
"""Events that torch keeps, each with its Python stack: about 1 KB of the host's memory per event."""

PROTOCOL: Final = 4
"""Of the pickles: torch's own viewer reads none of protocol 5 (pytorch #183842)."""

_ON_DEMAND: Final = "memory"
_OUT_OF_MEMORY: Final = "out_of_memory"

_recording: weakref.ReferenceType[AllocationHistory] | None = None
_is_attached = False


class AllocationHistory:
    """The history of torch's caching allocator while this is entered; see `record_allocations`.

    Attributes
    ----------
    folder
        Where the snapshots go.
    written
        Those that were written, in order.
    notes
        What went wrong or was lost, in sentences; a training is never stopped by it.
    """

    def __init__(self, folder: str | PathLike[str], *, max_entries: int, rank: int | None) -> None:
        self.folder = Path(folder).expanduser()
        self.written: list[Path] = []
        self.notes: list[str] = []
        self._max_entries, self._rank, self._is_on, self._process = max_entries, rank, False, os.getpid()

    def __enter__(self) -> Self:
        """Begin to record.

        Raises
        ------
        RecordingError
            If torch cannot, or somebody's own recording of the allocator is on.
        """
        global _recording  # noqa: PLW0603 - torch keeps one history per process, and this is who asked for it
        import torch  # noqa: PLC0415 - torch only where it is used

        if not torch.cuda.is_available():
            message = "no GPU that torch can use: its caching allocator has a history on CUDA only"
            raise RecordingError(message)
        if _is_history_on(torch):
            message = "the allocator's history is on already: end it first, torch.cuda.memory._record_memory_history(None)"
            raise RecordingError(message)
        self.folder.mkdir(parents=True, exist_ok=True)
        record = torch.cuda.memory._record_memory_history  # noqa: SLF001 - torch has no public name for it
        record(enabled="all", context="alloc", stacks="python", max_entries=self._max_entries)
        self._is_on = True
        _recording = weakref.ref(self)
        self._attach(torch)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """End the history; what was not dumped is gone."""
        self._is_on = False
        import torch  # noqa: PLC0415 - torch only where it is used

        with contextlib.suppress(Exception):  # the training's own error is the one to see
            torch.cuda.memory._record_memory_history(enabled=None)  # noqa: SLF001 - as above

    def dump(self, name: str = _ON_DEMAND) -> Path:
        """Write a snapshot of now: state and history, a pickle of protocol 4 that `perfnb.read_memory_snapshot` reads.

        Parameters
        ----------
        name
            First part of the file's name; rank and a number follow.

        Raises
        ------
        RecordingError
            If nothing is recorded, in a forked child, or the file cannot be written.
        """
        if not self._is_on or os.getpid() != self._process:
            message = "no history is being recorded here: call dump() inside `with perfnb.record_allocations(...) as history:`"
            raise RecordingError(message)
        import torch  # noqa: PLC0415 - torch only where it is used

        snapshot = torch.cuda.memory._snapshot()  # noqa: SLF001 - torch has no public name for it
        if any(len(trace) >= self._max_entries for trace in snapshot.get("device_traces", ())):
            self.notes.append(f"the history holds the last {self._max_entries:,} events only: raise max_entries, or dump earlier")
        path = self._new_path(name)
        beside = path.with_name(f".{path.name}.part")
        try:
            with beside.open("wb") as file:
                pickle.dump(snapshot, file, protocol=PROTOCOL)
            beside.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                beside.unlink()
            message = f"cannot write {path}: {error}"
            raise RecordingError(message) from error
        self.written.append(path)
        return path

    def _new_path(self, name: str) -> Path:
        rank = self._rank if self._rank is not None else int(os.environ.get("RANK", "0") or 0)
        names = (self.folder / f"{name}.rank{rank}.{number}.pickle" for number in itertools.count())
        return next(path for path in names if not path.exists())

    def _attach(self, torch: Any) -> None:
        """Be told when memory runs out; torch keeps an observer for good, so there is one per process."""
        global _is_attached  # noqa: PLW0603 - see above
        attach = getattr(torch._C, "_cuda_attach_out_of_memory_observer", None)  # noqa: SLF001 - there is no public one
        if attach is None:
            self.notes.append("this torch does not tell when memory runs out: snapshots on demand only")
        elif not _is_attached:
            attach(_ran_out)
            _is_attached = True

    def out_of_memory(self) -> None:
        """Memory ran out: write a snapshot, before the error reaches the training."""
        try:
            if self._is_on:
                self.dump(_OUT_OF_MEMORY)
        except Exception as error:  # noqa: BLE001 - the training's own error is the one to see
            self.notes.append(f"memory ran out, and the snapshot could not be written: {type(error).__name__}: {error}")


def record_allocations(
    folder: str | PathLike[str], *, max_entries: int = MOST_ENTRIES, rank: int | None = None
) -> AllocationHistory:
    """The history of torch's caching allocator inside a `with`, with a snapshot written when memory runs out.

    It costs time in each allocation, most of it for the Python stack: put it round a few steps. Not validated on a GPU.

    Parameters
    ----------
    folder
        Where snapshots are written; made if it does not exist.
    max_entries
        Events to keep, the newest.
    rank
        Number for the files' names; by default that of torchrun, else 0.

    Returns
    -------
    AllocationHistory
        To be entered; its `dump()` writes a snapshot on demand.

    Raises
    ------
    RecordingError
        If an argument makes no sense; on entering, without a GPU, or where somebody's own history is on.

    Examples
    --------
    On a machine with a GPU::

        with perfnb.record_allocations("memory") as history:
            train_two_steps()
            path = history.dump()
        run = perfnb.read_memory_snapshot(path)
    """
    if max_entries < 1:
        message = f"max_entries={max_entries} keeps nothing: 1 at least, {MOST_ENTRIES:,} by default"
        raise RecordingError(message)
    return AllocationHistory(folder, max_entries=max_entries, rank=rank)


def _is_history_on(torch: Any) -> bool:
    asked = getattr(torch._C, "_cuda_isHistoryEnabled", None)  # noqa: SLF001 - there is no public one
    return bool(asked()) if asked is not None else False


def _ran_out(_device: int, _wanted: int, _allocated: int, _free: int) -> None:
    """What torch calls when memory has run out."""
    history = _recording() if _recording is not None else None
    if history is not None:
        history.out_of_memory()
