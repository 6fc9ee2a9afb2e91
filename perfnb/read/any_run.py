"""What a path names, whoever wrote it: a run that perfnb recorded, profiler traces, or the log of a trainer."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Final

from perfnb.errors import NotATraceError, PerfnbError
from perfnb.read.kineto import read_kineto
from perfnb.read.run_folder import read_run
from perfnb.read.training_log import read_training_log
from perfnb.record.run_folder import HEADER
from perfnb.run import Run

_RANKS: Final = f"rank*/{HEADER}"


def read_any(path: str | PathLike[str], *more: str | PathLike[str]) -> Run:
    """Run of a folder that `perfnb.record` wrote, of one rank's folder in it, or else of profiler traces.

    Parameters
    ----------
    path
        File or folder.
    *more
        Further traces of the same job.

    Returns
    -------
    Run
        See `read_run` and `read_trace`.

    Raises
    ------
    PerfnbError
        If neither can be read there.
    """
    return read_kineto(path, *more) if more or not is_run_folder(path) else read_run(path)


def read_run_or_log(path: str | PathLike[str], *more: str | PathLike[str], units: Mapping[str, str] | None = None) -> Run:
    """As `read_any`, or else a run of a log that a trainer wrote (`read_training_log`), which tells of losses where no trace is.

    What is wrong is said of the trace or recording, where there is one, else of the log. `units` are those of the log's columns.
    """
    try:
        return read_any(path, *more)
    except PerfnbError as no_run:
        if more or is_run_folder(path):
            raise
        try:
            return read_training_log(path, units=units)
        except PerfnbError as no_log:
            raise (no_log if isinstance(no_run, NotATraceError) else no_run) from None


def is_run_folder(path: str | PathLike[str]) -> bool:
    """Whether `perfnb.record` wrote a folder.

    Examples
    --------
    >>> is_run_folder("data/samples/healthy")
    False
    """
    folder = Path(path).expanduser()
    return (folder / HEADER).is_file() or any(folder.glob(_RANKS))
