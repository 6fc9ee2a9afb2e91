"""The `Recorder` of a training: how a recording begins and ends, one at a time in a process."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from perfnb.errors import RecordingError
from perfnb.record.background import Background
from perfnb.record.header import header
from perfnb.record.hooks import Watch
from perfnb.record.loop_marks import LoopMarks
from perfnb.record.marks import Marks
from perfnb.record.run_folder import FolderSink
from perfnb.record.sink import MemorySink

if TYPE_CHECKING:
    from perfnb.read.recorded import RankRecording
    from perfnb.run import Run

NO_TORCH: Final = "torch was not imported when the recording began: only steps and phases marked by hand are seen"

_NOTHING_YET: Final = "nothing was recorded yet: enter the recorder first, as in `with perfnb.record(...) as recorder:`"

_active: Recorder | None = None
_starting = threading.Lock()


def _forget() -> None:
    """A forked child has no recording, and may begin its own."""
    global _active, _starting
    _active, _starting = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def step() -> None:
    """A step of the training ends here: for loops without a torch optimizer. Does nothing while nothing is recorded."""
    if _active is not None:
        _active.step()


def active() -> Recorder | None:
    """The recorder at work in this process."""
    return _active


class Recorder(LoopMarks):
    """A recording of this process's training; see `perfnb.record.begin.record`.

    Attributes
    ----------
    folder
        Where the run is written; None in memory.
    yields
        Whether a recording that begins inside this one ends it: a watched cell does, as the user's own record() knows better.
    successor
        The recording that ended this one so.
    keep_rows
        Rows of each table that memory holds, the newest; None for all.
    """

    def __init__(
        self,
        folder: str | PathLike[str] | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        trace: int = 0,
        overwrite: bool = False,
        hooks: bool = True,
        gpu_interval_s: float = 1.0,
        host_interval_s: float = 0.1,
        reset_peaks: bool = False,
        yields: bool = False,
        keep_rows: int | None = None,
    ) -> None:
        self.folder = None if folder is None else Path(folder).expanduser()
        self.yields = yields
        self.keep_rows = keep_rows
        self.successor: Recorder | None = None
        self._config = config
        self._trace = trace
        self._overwrite = overwrite
        self._hooks = hooks
        self._intervals_s, self._resets_peaks = (gpu_interval_s, host_interval_s), reset_peaks
        self._sink: MemorySink | FolderSink | None = None
        self._marks: Marks | None = None
        self._watch: Watch | None = None
        self._background: Background | None = None
        self._run: Run | None = None
        self._process = os.getpid()
        self._forget_trace: Callable[[], Any] = lambda: None  # of a recording in memory: it lies in a temporary folder

    @property
    def is_recording(self) -> bool:
        """Whether it is at work."""
        return self._background is not None

    @property
    def watch(self) -> Watch | None:
        """Its hooks; None before it began."""
        return self._watch

    @property
    def steps_ended(self) -> int:
        """Number of the step under way: steps that ended so far; 0 while nothing is recorded."""
        return self._background.edges if self._background is not None else 0

    @property
    def run(self) -> Run:
        """The run so far, or all of it once the recording has ended.

        Raises
        ------
        RecordingError
            If nothing was recorded yet.
        """
        if self._run is not None:
            return self._run
        if self._sink is None:
            raise RecordingError(_NOTHING_YET)
        if self._background is not None:
            self._background.drain()
        return self._read()

    def newest(self, count: int) -> Sequence[RankRecording]:
        """The newest rows of each table, about so many: quick enough to be asked every second while training runs.

        Parameters
        ----------
        count
            Rows of each table at most.

        Returns
        -------
        sequence of RankRecording
            One per rank that records into this folder; this one's where it is kept in memory.

        Raises
        ------
        RecordingError
            If nothing was recorded yet.
        """
        from perfnb.read.recorded import RankRecording  # noqa: PLC0415 - pandas is not needed to record
        from perfnb.read.run_folder import newest_rows  # noqa: PLC0415 - as above

        sink = self._sink
        if sink is None:
            raise RecordingError(_NOTHING_YET)
        if self._background is not None:
            self._background.drain()
        if isinstance(sink, MemorySink):
            return (
                RankRecording(sink.header, {table: rows[-count:] for table, rows in sink.rows.items()}, sink.state, sink.reason),
            )
        assert self.folder is not None  # noqa: S101 - a folder's sink has one
        return newest_rows(self.folder, count)

    def __enter__(self) -> Self:
        """Start to record."""
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """End the recording; what the training raised goes on."""
        if kind is None:
            self.finish()
        else:
            self.finish("failed", f"{kind.__name__}: {error}" if str(error) else kind.__name__)

    def start(self) -> Self:
        """Start to record: what entering does."""
        global _active  # noqa: PLW0603 - one recording per process is the rule, and this is where it is kept
        with _starting:
            if _active is not None and _active.yields:
                _active.successor = self
                _active.finish()
            if _active is not None:
                message = "another recording is under way in this process: end it first (leave its `with`, or call its stop())"
                raise RecordingError(message)
            if self._sink is not None:
                message = "this recorder has recorded already: make a new one with perfnb.record(...)"
                raise RecordingError(message)
            self._begin()
            _active = self
        atexit.register(self.finish)
        return self

    def _begin(self) -> None:
        marks = Marks()
        try:
            watch = Watch(marks, self._at_edge)
            background = Background(
                marks,
                watch,
                gpu_interval_s=self._intervals_s[0],
                host_interval_s=self._intervals_s[1],
                reset_peaks=self._resets_peaks,
            )
            told = header(self._config, background.devices, background.cpu_capacity)
            self._sink = (
                MemorySink(told, self.keep_rows)
                if self.folder is None
                else FolderSink(self.folder, told, overwrite=self._overwrite)
            )
        except BaseException:
            marks.close()
            raise
        self._marks, self._watch, self._background = marks, watch, background
        try:
            notes = []
            if self._hooks and "torch" in sys.modules:
                watch.install()
            elif self._hooks:
                notes.append(NO_TORCH)
            background.start(self._sink, notes, self._trace, self._folder_of_trace())
        except BaseException as error:
            self.finish("failed", f"the recording could not begin: {type(error).__name__}: {error}")
            raise

    def _folder_of_trace(self) -> Path | None:
        """Where the profiler's window goes: a temporary folder where the recording is in memory."""
        if isinstance(self._sink, MemorySink) and self._trace:
            self._sink.rank_folder = Path(tempfile.mkdtemp(prefix="perfnb-"))
            self._forget_trace = weakref.finalize(self, shutil.rmtree, self._sink.rank_folder, ignore_errors=True)
        return None if self._sink is None else self._sink.rank_folder

    def stop(self) -> Run:
        """End the recording; the run that it made. Calling it again gives the same run."""
        self.finish()
        return self.run

    def finish(self, state: str = "finished", reason: str = "") -> None:
        """End the recording without reading it; calling it again does nothing.

        Parameters
        ----------
        state
            "finished" or "failed".
        reason
            Why it ended, in words.
        """
        global _active  # noqa: PLW0603 - see `start`
        background, self._background = self._background, None
        if background is None or self._marks is None or self._watch is None or self._sink is None:
            return
        if _active is self:
            _active = None
        atexit.unregister(self.finish)
        if os.getpid() != self._process:  # a forked child: all of it is the parent's
            return
        self._watch.remove()
        self._marks.close()
        try:
            background.stop()
        finally:
            self._sink.close(state, reason)

    def _at_edge(self) -> None:
        if self._background is not None:
            self._background.at_edge()

    def _read(self) -> Run:
        from perfnb.read.recorded import run_of  # noqa: PLC0415 - pandas is not needed to record

        if isinstance(self._sink, MemorySink):
            run = run_of([self._sink])
        else:
            from perfnb.read.run_folder import read_run  # noqa: PLC0415 - as above

            assert self.folder is not None  # noqa: S101 - a folder's sink has one
            run = read_run(self.folder)
        if self._background is None:
            self._run = run
            self._forget_trace()
        return run
