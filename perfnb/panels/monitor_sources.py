"""What a monitor panel watches: the recording of this process, whichever it is, or the run folder of another."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from perfnb.errors import PerfnbError
from perfnb.read.newest import Now, now_of
from perfnb.read.run_folder import newest_rows
from perfnb.record.recorder import Recorder, active

NEWEST_ROWS: Final = 600
"""Samples of each kind that a look goes back: the panel's chart holds these."""


class RecorderSource:
    """One recorder of this process."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def look(self) -> Now | None:
        """What it tells now; of a recording that took its place, once there is one."""
        while self._recorder.successor is not None:
            self._recorder = self._recorder.successor
        return now_of(self._recorder.newest(NEWEST_ROWS), time.time_ns())

    def end(self) -> None:
        """Nothing was begun for the panel: the recording goes on."""


class HereSource:
    """Whatever records in this process; while nothing does, a sampler of its own tells of the machine.

    Parameters
    ----------
    interval_s
        Between two samples of the sampler of its own.
    """

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._own: Recorder | None = None
        self._has_ended = False

    def look(self) -> Now | None:
        """What records now tells."""
        recorder = active()
        if recorder is None and not self._has_ended:
            recorder = self._sampler()
        return None if recorder is None else now_of(recorder.newest(NEWEST_ROWS), time.time_ns())

    def end(self) -> None:
        """End the sampler of its own."""
        self._has_ended = True
        own, self._own = self._own, None
        if own is not None:
            own.finish()

    def _sampler(self) -> Recorder | None:
        own = Recorder(
            hooks=False,
            gpu_interval_s=self._interval_s,
            host_interval_s=self._interval_s,
            yields=True,
            keep_rows=NEWEST_ROWS,
        )
        try:
            self._own = own.start()
        except PerfnbError:  # a recording began just now: the next look finds it
            return None
        return self._own


class FolderSource:
    """A run folder that any process writes, or has written."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder).expanduser()

    def look(self) -> Now | None:
        """What its newest rows tell."""
        return now_of(newest_rows(self._folder, NEWEST_ROWS), time.time_ns())

    def end(self) -> None:
        """Nothing was begun for the panel."""
