"""perfnb.monitor_panel: the monitor on the recording of this process, or on the run folder of another."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from perfnb.errors import RecordingError
from perfnb.panels.monitor import MonitorPanel
from perfnb.panels.monitor_sources import FolderSource, HereSource, RecorderSource
from perfnb.record.recorder import Recorder
from perfnb.text import name

SHORTEST_S: Final = 0.2


def monitor_panel(source: Recorder | str | os.PathLike[str] | None = None, *, interval_s: float = 1.0) -> MonitorPanel:
    """Panel that shows a training and its machine as they are now, again and again, also while a cell runs.

    Its thread starts when the panel is shown. It ends when Stop is clicked or `.stop()` is called, when the recording ends, when
    no browser shows the panel any more, and with the kernel; it takes 2 % of a core at most, and says what it takes.

    Parameters
    ----------
    source
        A recorder of `perfnb.record`; or the run folder that this or any other process records into, on this machine or on one
        that shares the folder. By default whatever records in this process, a `%%perfnb` cell or the user's own recorder; while
        nothing does, a sampler of the panel's own tells of the machine.
    interval_s
        Seconds between two looks, at least 0.2.

    Returns
    -------
    MonitorPanel
        Shows itself at the end of a cell; `.now` is what it saw last, `.snapshot()` that as HTML, Markdown and plain text.

    Raises
    ------
    RecordingError
        If the interval is too short.

    Examples
    --------
    >>> import perfnb
    >>> with perfnb.record(hooks=False) as recorder:
    ...     for batch in recorder.steps([1, 2, 3]):
    ...         recorder.log(loss=1.0 / batch)
    >>> panel = perfnb.monitor_panel(recorder)
    >>> panel.now.ranks[0].step, panel.now.is_over
    (2, True)
    >>> panel.stop()
    """
    if not interval_s >= SHORTEST_S:
        message = f"interval_s={interval_s!r} is too short: {SHORTEST_S} seconds at least"
        raise RecordingError(message)
    if source is None:
        here = HereSource(interval_s)
        return MonitorPanel(here.look, title="this process", end=here.end, interval_s=interval_s)
    if isinstance(source, Recorder):
        recorder = RecorderSource(source)
        return MonitorPanel(recorder.look, title="a recorder of this process", end=recorder.end, interval_s=interval_s)
    folder = FolderSource(source)
    return MonitorPanel(folder.look, title=f"run folder {name(Path(source).name)}", end=folder.end, interval_s=interval_s)
